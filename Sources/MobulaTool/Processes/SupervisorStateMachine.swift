import MobulaCore

/// What a supervisor does about processes that end.
///
/// One that ends is started again, after a pause that doubles with each quick
/// end; one that refuses to run, or ends quickly too often, ends the supervisor.
struct SupervisorStateMachine {
  enum Action: Hashable {
    case restart(after: Duration)
    case giveUp(MobulaError)
    case nothing
  }

  /// A process that lived this long has recovered.
  static let quick = Duration.seconds(10)
  static let maximumQuickEnds = 6
  /// The exit status of a process that another start would not help.
  static let refusedStatus: CInt = 77

  private var quickEnds: [String: Int] = [:]
  private(set) var isStopping = false

  /// A process ended after it ran for `lifetime`.
  mutating func ended(_ name: String, lifetime: Duration, exit: ChildProcess.Exit) -> Action {
    if isStopping { return .nothing }
    if exit == .status(Self.refusedStatus) {
      return .giveUp(MobulaError(.unavailable, "\(name) can't run here; its last words are above."))
    }
    let ends = lifetime < Self.quick ? quickEnds[name, default: 0] + 1 : 1
    quickEnds[name] = ends
    guard ends <= Self.maximumQuickEnds else {
      return .giveUp(
        MobulaError(.unavailable, "\(name) ended \(ends) times in a row, the last time with \(exit): see the log."))
    }
    return .restart(after: .milliseconds(50 << (ends - 1)))
  }

  mutating func stop() { isStopping = true }
}
