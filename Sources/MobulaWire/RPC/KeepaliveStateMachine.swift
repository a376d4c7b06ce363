/// Tells a silent peer from a slow one, by counting ticks of a fixed interval.
struct KeepaliveStateMachine: Sendable {
  enum TickAction: Equatable {
    case none
    case ping
    /// The peer was silent for the whole limit.
    case close
  }

  /// Whole intervals of silence after which the peer counts as gone.
  let limit: Int
  /// Ticks since something was received, the one that ended a part of an interval included.
  private var ticks = 0

  init(interval: Duration, silenceLimit: Duration) {
    limit = max(1, Int((silenceLimit / interval).rounded(.up)))
  }

  /// Bytes came, whatever they are.
  mutating func received() { ticks = 0 }

  /// One interval has passed since the last tick.
  mutating func tick() -> TickAction {
    ticks += 1
    // The first tick after a sign of life ends an interval that was not silent throughout.
    let silent = ticks - 1
    return silent >= limit ? .close : silent > 0 ? .ping : .none
  }
}
