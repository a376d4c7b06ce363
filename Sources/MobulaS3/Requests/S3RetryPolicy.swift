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

  public init(
    maximumAttempts: Int = 5, firstPause: Duration = .milliseconds(100), maximumPause: Duration = .seconds(5),
    maximumRetryAfter: Duration = .seconds(20)
  ) {
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
