internal import MobulaCore

/// How long to wait before a connection is tried again: longer each time, until one holds.
struct RetryPause: Sendable {
  enum Reason: Sendable {
    /// Nobody was there: 50 ms, doubled up to a second, so that a peer that is started again is found at once.
    case nobody
    /// Somebody answered, and not as it should: 1 s, doubled up to 30 s.
    case refusal

    var range: ClosedRange<Duration> {
      switch self {
      case .nobody: .milliseconds(50) ... .seconds(1)
      case .refusal: .seconds(1) ... .seconds(30)
      }
    }
  }

  /// A connection that lived no longer is as good as none.
  static let held = Duration.seconds(1)

  private var last = Duration.zero

  mutating func next(after reason: Reason) -> Duration {
    last = min(max(last * 2, reason.range.lowerBound), reason.range.upperBound)
    return last
  }

  /// A connection was there for so long, and is gone.
  ///
  /// - Returns: how long to wait before the next.
  mutating func lost(after lifetime: Duration) -> Duration {
    if lifetime < Self.held { return next(after: .nobody) }
    last = .zero
    return .zero
  }
}

/// Lets through one message a minute of those that say the same again and again.
struct MessageThrottle: Sendable {
  static let interval = Duration.seconds(60)
  private var last: ContinuousClock.Instant?

  mutating func admits(at now: ContinuousClock.Instant) -> Bool {
    if let last, now - last < Self.interval { return false }
    last = now
    return true
  }

  /// What comes next is news.
  mutating func reset() { last = nil }
}
