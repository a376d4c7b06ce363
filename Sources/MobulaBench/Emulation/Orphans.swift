internal import CMobula
import FoundationEssentials
internal import Glibc

/// Processes whose parents have ended, and whom nobody reaps by `ChildProcess`.
enum Orphans {
  /// Makes those below this process its children from now on, rather than init's.
  static func adopt() { mobula_adopt_orphans() }

  /// Waits until this process has no children any more, at most for `limit`; nobody else may wait for any of them.
  static func reapAll(within limit: Duration) {
    let deadline = ContinuousClock.now + limit
    while ContinuousClock.now < deadline {
      let pid = waitpid(-1, nil, WNOHANG)
      if pid == -1, errno == ECHILD { return }
      if pid == 0 { usleep(10_000) }
    }
  }

  /// Reaps this process's children that have ended in a PID namespace below its own.
  ///
  /// A host's process is one when the `nsenter` before it was killed, and the
  /// host's namespace doesn't end as long as it isn't reaped.
  static func reapFromNamespacesBelow() {
    for pid in children(of: getpid()) {
      let data = (try? Data(contentsOf: URL(filePath: "/proc/\(pid)/status"))) ?? Data()
      let lines = String(decoding: data, as: UTF8.self).split(separator: "\n")
      // NSpid: its number in this namespace, and in each one below.
      let numbers = lines.first { $0.hasPrefix("NSpid:") }?.split { $0 == "\t" || $0 == " " }.dropFirst() ?? []
      if numbers.count > 1 { waitpid(pid, nil, WNOHANG) }
    }
  }
}

/// The children of a process.
func children(of pid: Int32) -> [Int32] {
  // The system keeps a list for each thread: of the children that it has started.
  let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
  return threads.flatMap { thread in
    let data = (try? Data(contentsOf: URL(filePath: "/proc/\(pid)/task/\(thread)/children"))) ?? Data()
    return String(decoding: data, as: UTF8.self).split(separator: " ").compactMap { Int32($0) }
  }
}

/// The child of a process that has exactly one.
func onlyChild(of pid: Int32) -> Int32? {
  let children = children(of: pid)
  return children.count == 1 ? children[0] : nil
}
