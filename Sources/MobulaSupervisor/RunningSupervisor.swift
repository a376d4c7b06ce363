import CMobula
import FoundationEssentials
import Glibc
package import MobulaCore

/// A supervisor that runs, as certain as the kernel can make it: a process of this user's that has the lock file of its
/// directory open, held by a descriptor that never means another process.
package struct RunningSupervisor: Sendable {
  package let pid: Int32
  /// As it was when the supervisor was started.
  package let directory: String
  /// Whether its directory, or the lock file in it, is not there any more: no command finds it there.
  package let isOrphan: Bool
  private let process: SharedDescriptor

  /// All that this process can see: those of other users and of other PID namespaces it can't.
  package static func all() -> [RunningSupervisor] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { Int32($0) }.sorted().compactMap { RunningSupervisor($0) }
  }

  /// The one of a directory.
  ///
  /// - Throws: `MobulaError`: `notFound` when none runs there, with those that run elsewhere; `denied` when one does that
  ///   can't be seen from here.
  package static func find(in directory: RunDirectory) throws(MobulaError) -> RunningSupervisor {
    let all = all()
    let real = realpath(directory.path, nil).map { pointer in
      defer { free(pointer) }
      return String(cString: pointer)
    }
    let here = all.filter { $0.directory == real ?? directory.path }
    if let found = here.first(where: { !$0.isOrphan }) ?? here.first { return found }
    if let pid = directory.supervisor() {
      throw MobulaError(
        .denied,
        "A host runs in \(directory.path), but its supervisor (process \(pid) where it was started) can't be seen from here: run `mobula stop` as the user, and in the container or PID namespace, that started it."
      )
    }
    if access(directory.path, F_OK) == 0, access(directory.path, R_OK | X_OK) != 0 {
      throw MobulaError(
        .denied,
        "\(directory.path) can't be looked into (\(errnoText(currentErrno()))): a host's directory is its user's alone, so run this as that user."
      )
    }
    let elsewhere = all.map { "\($0.directory) (process \($0.pid))" }.joined(separator: ", ")
    throw MobulaError(
      .notFound,
      all.isEmpty
        ? "Nothing of Mobula runs in \(directory.path)."
        : "Nothing of Mobula runs in \(directory.path); it runs in \(elsewhere): `mobula stop --directory \(all[0].directory)` stops that."
    )
  }

  private init?(_ pid: Int32) {
    let folder = "/proc/\(pid)"
    var status = stat()
    guard stat(folder, &status) == 0, status.st_uid == getuid(),
      let words = (try? readText(folder + "/cmdline"))?.split(separator: "\0"), words.count > 1,
      ["supervise", "start"].contains(words[1])
    else { return nil }
    // First what can't come to mean another process, then the look at what it is.
    let raw = mobula_open_process(pid)
    guard raw >= 0 else { return nil }
    process = SharedDescriptor(OwnedDescriptor(owning: raw))
    self.pid = pid
    let suffix = HostPaths.supervisor(in: "")
    for number in (try? FileManager.default.contentsOfDirectory(atPath: folder + "/fd")) ?? [] {
      let link = "\(folder)/fd/\(number)"
      var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
      let count = readlink(link, &buffer, buffer.count - 1)
      guard count > 0 else { continue }
      var path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
      let isDeleted = path.hasSuffix(" (deleted)")
      if isDeleted { path.removeLast(" (deleted)".count) }
      guard path.hasSuffix(suffix) else { continue }
      var own = stat()
      var there = stat()
      guard stat(link, &own) == 0 else { continue }
      directory = String(path.dropLast(suffix.count))
      isOrphan = stat(path, &there) != 0 || own.st_dev != there.st_dev || own.st_ino != there.st_ino
      if hasEnded { return nil }
      return
    }
    return nil
  }

  package var hasEnded: Bool {
    var ready = pollfd(fd: process.rawValue, events: Int16(POLLIN), revents: 0)
    return poll(&ready, 1, 0) != 0
  }

  package func signal(_ number: CInt) { _ = mobula_signal_process(process.rawValue, number) }

  /// Whether it has ended within so long.
  package func ends(within limit: Duration) async throws -> Bool {
    let deadline = ContinuousClock.now + limit
    while !hasEnded {
      if ContinuousClock.now >= deadline { return false }
      try await Task.sleep(for: .milliseconds(10))
    }
    return true
  }
}
