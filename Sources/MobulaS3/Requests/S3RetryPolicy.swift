/// Exponential backoff with full jitter: the pause before attempt n + 1 is
/// drawn evenly from 0 to min(`maximumPause`, `firstPause` × 2ⁿ⁻¹), so that many
/// clients that were throttled together don't come back together.
/// (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
/// What the server asks for by `Retry-After` comes on top.
public struct S3RetryPolicy: Sendable, Hashable {
  /// Attempts in all, the first included; 5 by default.
  public var maximumAttempts: Int
  /// The longest pause after the first attempt; 100 ms by default.
  public var firstPause: Duration
  /// The longest pause of all; 5 s by default.
  public var maximumPause: Duration
  /// The most of a `Retry-After` that is honoured; 20 s by default.
  public var maximumRetryAfter: Duration
  /// For how long a service that does not answer any more is waited for in the middle of an object, whatever the number
  /// of attempts; not at all by default.
  public var patience: Duration

  public init(
    maximumAttempts: Int = 5, firstPause: Duration = .milliseconds(100), maximumPause: Duration = .seconds(5),
    maximumRetryAfter: Duration = .seconds(20), patience: Duration = .zero
  ) {
    self.patience = patience
    self.maximumAttempts = maximumAttempts
    self.firstPause = firstPause
    self.maximumPause = maximumPause
    self.maximumRetryAfter = maximumRetryAfter
  }

  /// The pause after failed attempt `attempt` (from 1); `nil` when it was the last.
  ///
  /// - Parameter retryAfter: what the server asks for.
  func pause(
    after attempt: Int, retryAfter: Duration? = nil, using generator: inout some RandomNumberGenerator
  ) -> Duration? {
    guard attempt < maximumAttempts else { return nil }
    let longest = min(maximumPause, firstPause * (1 << min(attempt - 1, 30)))
    // The upper 53 bits as a fraction of one.
    let drawn = longest * (Double(generator.next() >> 11) * 0x1p-53)
    return min(maximumRetryAfter, retryAfter ?? .zero) + drawn
  }
}

/// The attempts at one part of an object after the other: how many have failed since something came, and since when.
struct S3Persistence {
  private let policy: S3RetryPolicy
  private var failures = 0
  private var since: ContinuousClock.Instant?
  private var generator = SystemRandomNumberGenerator()
  /// Told when a service that does not answer is waited for longer than one that fails now and then.
  private let waiting: (@Sendable (S3Error) -> Void)?

  /// - Parameter since: since when nothing has come, for all that is known.
  init(_ policy: S3RetryPolicy, since: ContinuousClock.Instant? = nil, waiting: (@Sendable (S3Error) -> Void)?) {
    self.policy = policy
    self.since = since
    self.waiting = waiting
  }

  mutating func succeeded() { (failures, since) = (0, nil) }

  /// Whether nothing has come for so long that what waits for it may give up: attempts that each wait for their deadline
  /// are not made five times.
  static func isOver(_ error: S3Error, since: ContinuousClock.Instant, _ policy: S3RetryPolicy) -> Bool {
    error.code == S3Error.timedOut && .now - since >= max(policy.patience, .seconds(60))
  }

  /// The pause before the next attempt; `nil` when there is none.
  ///
  /// - Parameters:
  ///   - isRetryable: whether another attempt may succeed.
  ///   - hasProgressed: whether something came in the one that failed.
  mutating func pause(after error: S3Error, isRetryable: Bool, hasProgressed: Bool) -> Duration? {
    if hasProgressed { succeeded() }
    failures += 1
    let start = since ?? .now
    since = start
    guard isRetryable, !Self.isOver(error, since: start, policy) else { return nil }
    if let pause = policy.pause(after: failures, retryAfter: error.retryAfter, using: &generator) { return pause }
    guard error.isAbsence, .now - start < policy.patience else { return nil }
    waiting?(error)
    return min(.seconds(1), policy.maximumPause)
  }
}
