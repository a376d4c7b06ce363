internal import MobulaCore

/// Decides how many requests of one transfer run at once and how many bytes each is for: a value without clock,
/// tasks or I/O. Times are durations since any fixed moment.
///
/// The number of requests grows while more of them bring more bytes a second, by
/// doubling first and by one later, and is halved when S3 asks for less
/// (additive increase, multiplicative decrease: Chiu and Jain, 1989), or when a
/// slow link leaves each of them little and half as many bring as much. A
/// request is for about as many bytes as its connection brings in `partTime`,
/// so that what a request costs beside its bytes hardly counts.
package struct S3ConcurrencyStateMachine: Sendable {
  package struct Settings: Sendable {
    /// Requests at once; never more.
    var maximum: Int
    /// Requests at once to begin with.
    var initial: Int
    /// Whether the number follows what is measured, rather than only S3's wish for less.
    var isAdaptive = true
    /// Bytes that a request is for at least; a chunk.
    var smallestPart: Int
    /// Bytes that a request is for to begin with, and for good where `isPartFixed`.
    var initialPart = 8 * 1_048_576
    var largestPart = 64 * 1_048_576
    var isPartFixed = false

    /// How long a request should take. On a loopback with SeaweedFS, where a request costs some 2 ms, half a second
    /// was 10 to 20 % slower: a few long requests don't end together.
    var partTime = Duration.milliseconds(200)
    /// How long a number of requests is tried before it is judged; as much is waited before, for connections to
    /// come up.
    var window = Duration.milliseconds(250)
    /// How long a number that has proved best is kept before one more is tried.
    var hold = Duration.seconds(3)
    /// How much more a doubling has to bring.
    var worthwhile = 1.15
    /// Bytes that each request should have brought before a number is judged; on a slow link, where fewer bytes say
    /// nothing, that takes up to `slowWindow`.
    var judgedBytes = 65_536
    var slowWindow = Duration.seconds(2)
    /// What a request brings a second at least, where fewer of them bring as much together: of those that share a slow
    /// link, one may get nothing for longer than it is waited for.
    var leastRate = 65_536.0

    package init(maximum: Int, initial: Int, smallestPart: Int) {
      self.maximum = maximum
      self.initial = initial
      self.smallestPart = smallestPart
    }
  }

  /// What the present number of requests is.
  private enum Phase {
    /// Twice the number before, which brought `rate` bytes a second. Can transition to: doubling, holding.
    case doubling(before: Int, rate: Double)
    /// The best that is known. Can transition to: trying, thinning, holding.
    case holding(until: Duration)
    /// One more than the best that is known, which brought `rate`. Can transition to: holding.
    case trying(before: Int, rate: Double)
    /// Half of what brought `rate`, and each little. Can transition to: holding.
    case thinning(before: Int, rate: Double)
  }

  let settings: Settings
  /// Requests that may run at once.
  package private(set) var limit: Int
  private(set) var running = 0
  private var phase: Phase
  /// What a request's connection brings, in bytes a second, as a moving average.
  private var connectionRate: Double?
  /// When the present number was decided, and the bytes that came in its window so far.
  private var decided = Duration.zero
  private var windowStart: Duration?
  private var windowBytes = 0
  /// Whether fewer were tried for what they leave each other.
  private var isThin = false
  /// Requests from before this moment don't halve the number again.
  private var halved: Duration?

  package init(_ settings: Settings) {
    precondition(settings.maximum >= 1 && settings.smallestPart >= 1)
    self.settings = settings
    limit = min(settings.maximum, max(1, settings.initial))
    phase = .doubling(before: 0, rate: 0)
  }

  enum StartAction: Equatable {
    /// A request for about so many bytes.
    case start(bytes: Int)
    case wait
  }

  /// Somebody wants to make a request.
  ///
  /// - Parameter remaining: bytes that no request is for yet, where that is known.
  mutating func wants(remaining: Int? = nil) -> StartAction {
    guard running < limit else { return .wait }
    running += 1
    return .start(bytes: partSize(remaining: remaining))
  }

  /// Bytes of some request came.
  ///
  /// - Returns: how many more requests may run now.
  @discardableResult
  package mutating func received(_ bytes: Int, at now: Duration) -> Int {
    guard settings.isAdaptive || limit < settings.initial else { return 0 }
    guard let start = windowStart else {
      if now - decided >= settings.window { (windowStart, windowBytes) = (now, 0) }
      return 0
    }
    windowBytes += bytes
    let isSaid = windowBytes >= settings.judgedBytes * limit || now - start >= settings.slowWindow
    guard now - start >= settings.window, isSaid else { return 0 }
    let before = limit
    judge(Double(windowBytes) / (now - start).asSeconds, at: now)
    return max(0, limit - before)
  }

  /// A request brought all of its bytes.
  mutating func finished(_ bytes: Int, in time: Duration) {
    running -= 1
    let rate = Double(bytes) / max(time.asSeconds, 1e-6)
    connectionRate = connectionRate.map { 0.7 * $0 + 0.3 * rate } ?? rate
  }

  /// A request failed, or was not made after all.
  mutating func failed() { running -= 1 }

  /// S3 asks for less.
  ///
  /// - Parameter start: when that request was made: many that were under way together count once.
  mutating func throttled(startedAt start: Duration, at now: Duration) {
    running -= 1
    slowDown(startedAt: start, at: now)
  }

  /// As `throttled`, of a request that goes on.
  package mutating func slowDown(startedAt start: Duration, at now: Duration) {
    if let halved, start < halved { return }
    halved = now
    change(to: max(1, limit / 2), .holding(until: now + settings.hold), at: now)
  }

  /// Something else than the number of requests has changed: what was measured so far doesn't count.
  package mutating func measureAnew(at now: Duration) {
    decided = now
    windowStart = nil
  }

  /// Bytes that the next request should be for.
  private func partSize(remaining: Int?) -> Int {
    if settings.isPartFixed { return max(settings.smallestPart, settings.initialPart) }
    var size = settings.initialPart
    if let connectionRate { size = Int(min(connectionRate * settings.partTime.asSeconds, 1e15)) }
    size = min(size, settings.largestPart)
    // Towards the end smaller, so that all connections end at about the same time.
    if let remaining { size = min(size, remaining / limit) }
    return max(settings.smallestPart, size)
  }

  private mutating func judge(_ rate: Double, at now: Duration) {
    switch phase {
    case .doubling(let before, let former):
      if before > 0, rate < former * settings.worthwhile {
        // What the last doubling brought is not worth its connections.
        change(to: before, .holding(until: now + settings.hold), at: now)
      } else if limit < settings.maximum {
        change(to: min(settings.maximum, 2 * limit), .doubling(before: limit, rate: rate), at: now)
      } else {
        change(to: limit, .holding(until: .seconds(Int64.max / 2)), at: now)
      }
    case .holding(let end):
      if settings.isAdaptive, limit > 1, now >= end || !isThin, rate < settings.leastRate * Double(limit) {
        isThin = true
        change(to: limit / 2, .thinning(before: limit, rate: rate), at: now)
      } else if now >= end, limit < settings.maximum {
        change(to: limit + 1, .trying(before: limit, rate: rate), at: now)
      } else {
        windowStart = now
        windowBytes = 0
      }
    case .trying(let before, let former):
      // One of n more should bring 1/n more: half of that is enough.
      let isBetter = rate >= former * (1 + 0.5 / Double(before))
      let end = isBetter ? now : now + settings.hold
      change(to: isBetter ? limit : before, .holding(until: end), at: now)
    case .thinning(let before, let former):
      let isAsGood = rate >= former * 0.85
      change(to: isAsGood ? limit : before, .holding(until: isAsGood ? now : now + settings.hold * 10), at: now)
    }
  }

  private mutating func change(to limit: Int, _ phase: Phase, at now: Duration) {
    self.limit = limit
    self.phase = phase
    decided = now
    windowStart = nil
  }
}

extension Duration {
  var asSeconds: Double {
    let (seconds, attoseconds) = components
    return Double(seconds) + Double(attoseconds) * 1e-18
  }
}
