internal import Glibc
package import MobulaCore

/// A process on an emulated host, started and reaped by this one.
public final class HostProcess: Sendable {
  private let child: ChildProcess
  /// Whether `child` is an `nsenter` that has the process itself as its only child.
  private let isEntering: Bool

  init(_ child: ChildProcess, isEntering: Bool) {
    self.child = child
    self.isEntering = isEntering
  }

  /// The process's number as this process sees it (the host's own view differs);
  /// `nil` while it is still entering the host, and once it is gone.
  public var pid: Int32? {
    guard child.exit == nil else { return nil }
    return isEntering ? onlyChild(of: child.pid) : child.pid
  }

  /// How the process ended; `nil` while it runs.
  package var exit: ChildProcess.Exit? { child.exit }

  /// Waits until the process has ended.
  package func waitForExit() async -> ChildProcess.Exit { await child.waitForExit() }

  /// Sends a signal; nothing once the process has ended. One that is still entering
  /// its host is killed, whatever the signal.
  public func signal(_ signal: CInt) {
    guard isEntering else { return child.signal(signal) }
    // nsenter reaps the process and ends right after it, so the number is still the process's.
    if let pid { _ = kill(pid, signal) } else { child.signal(SIGKILL) }
  }
}
