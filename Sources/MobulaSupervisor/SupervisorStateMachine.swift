package import MobulaCore

/// What a supervisor does about processes that end.
///
/// One that ends is started again, for ever, after a pause that doubles with each quick end up to half a minute. The
/// host's memory is worth more than any other process: once the host has worked, nothing ends the supervisor, which
/// keeps that memory, but an order to stop. Before, a process that refuses to run, or ends quickly too often, does:
/// then somebody waits to hear why.
package struct SupervisorStateMachine {
  package enum Action: Hashable {
    case restart(after: Duration)
    case giveUp(MobulaError)
    case nothing
  }

  /// The process whose work makes the start a success.
  package static let host: Name = "host"
  /// So much of a process's life makes up for one quick end.
  package static let quick = Duration.seconds(1)
  /// So many quick ends in a row are too many for a first start.
  package static let maximumQuickEnds = 6
  package static let shortestPause = Duration.milliseconds(50)
  /// Of a process that refused to run.
  package static let shortestPauseOfRefused = Duration.seconds(1)
  package static let longestPause = Duration.seconds(30)
  /// The exit status of a process that another start would not help, for all that it knows.
  package static let refusedStatus: CInt = 77

  private var quickEnds: [Name: Int] = [:]
  private(set) var isStopping = false
  /// Whether the host has worked since the supervisor's start.
  private(set) var hasSucceeded = false

  /// A process says that it does its work.
  package mutating func ready(_ name: Name) {
    if name == Self.host { hasSucceeded = true }
  }

  /// A process ended after it ran for `lifetime`.
  package mutating func ended(_ name: Name, lifetime: Duration, exit: ChildProcess.Exit) -> Action {
    if isStopping { return .nothing }
    let ends = count(name, lifetime)
    let isRefused = exit == .status(Self.refusedStatus)
    if !hasSucceeded {
      if isRefused {
        return .giveUp(MobulaError(.unavailable, "\(name) can't run here; its last words are above."))
      }
      guard ends <= Self.maximumQuickEnds else {
        return .giveUp(
          MobulaError(.unavailable, "\(name) ended \(ends) times in a row, the last time with \(exit): see the log."))
      }
    }
    return .restart(after: Self.pause(ends, isRefused ? Self.shortestPauseOfRefused : Self.shortestPause))
  }

  /// A process could not be started at all.
  package mutating func notStarted(_ name: Name, _ error: MobulaError) -> Action {
    if isStopping { return .nothing }
    return hasSucceeded ? .restart(after: Self.pause(count(name, .zero), Self.shortestPauseOfRefused)) : .giveUp(error)
  }

  package mutating func stop() { isStopping = true }

  private mutating func count(_ name: Name, _ lifetime: Duration) -> Int {
    let forgiven = Int(min(lifetime / Self.quick, 1000))
    let ends = max(0, quickEnds[name, default: 0] - forgiven) + 1
    quickEnds[name] = min(ends, 64)
    return ends
  }

  private static func pause(_ ends: Int, _ shortest: Duration) -> Duration {
    min(longestPause, shortest * (1 << min(ends - 1, 20)))
  }
}
