internal import FoundationEssentials

/// Decides when credentials are asked for again, and who waits for them.
///
/// They are refreshed twice over, as the AWS SDKs do: some minutes before they expire in the background
/// (advisory), and in the last minute so that everybody waits (mandatory). Times are the wall clock's, as
/// expirations are.
struct CredentialsRefreshStateMachine: Sendable {
  struct Timing: Sendable {
    /// How long before the expiration a refresh begins in the background: 5 min, at most a quarter of the lifetime.
    var advisory: TimeInterval = 300
    /// How long before the expiration everybody waits for a refresh: 1 min, at most a tenth of the lifetime.
    var mandatory: TimeInterval = 60
    /// The share of `advisory` by which a refresh begins earlier, times a number drawn from 0 to 1: many processes
    /// that began together don't ask together.
    var jitter = 0.2
    /// How long the old credentials are used after a refresh has failed, before another is tried: 30 s.
    var pause: TimeInterval = 30
  }

  typealias Waiter = Int
  typealias Refresh = Int

  private struct Held {
    var credentials: S3Credentials
    /// From when on a refresh is due; `nil` for never.
    var advisoryAt: Date?
    var mandatoryAt: Date?
    var expiresAt: Date?

    func isValid(at now: Date) -> Bool { expiresAt.map { now < $0 } ?? true }
  }

  private let timing: Timing
  private var held: Held?
  /// The refresh under way and those who wait for it.
  private var refreshing: (number: Refresh, waiters: [Waiter])?
  private var lastRefresh = 0
  /// After a failure: when the next refresh may begin, as long as the old credentials are valid.
  private var notBefore = Date.distantPast

  init(timing: Timing = Timing()) { self.timing = timing }

  enum Ask: Equatable {
    case use(S3Credentials)
    /// Use these, and begin the refresh.
    case useAndRefresh(S3Credentials, Refresh)
    /// Begin the refresh, and wait for it.
    case refreshAndWait(Refresh)
    case wait
  }

  /// Somebody needs credentials.
  mutating func ask(_ waiter: Waiter, at now: Date) -> Ask {
    if let held, held.isValid(at: now) {
      guard let advisoryAt = held.advisoryAt, now >= advisoryAt, now >= notBefore else {
        return .use(held.credentials)
      }
      guard let mandatoryAt = held.mandatoryAt, now >= mandatoryAt else {
        return refreshing == nil ? .useAndRefresh(held.credentials, begin([])) : .use(held.credentials)
      }
    }
    guard refreshing == nil else {
      refreshing?.waiters.append(waiter)
      return .wait
    }
    return .refreshAndWait(begin([waiter]))
  }

  private mutating func begin(_ waiters: [Waiter]) -> Refresh {
    lastRefresh += 1
    refreshing = (lastRefresh, waiters)
    return lastRefresh
  }

  enum Outcome: Equatable {
    /// Those who wait get these.
    case give(S3Credentials, [Waiter])
    /// Those who wait get the error.
    case fail([Waiter])
    /// The refresh had been given up: its result is dropped.
    case late
  }

  /// A refresh has brought credentials. `chance`, from 0 to 1, decides the jitter.
  mutating func loaded(_ credentials: S3Credentials, by refresh: Refresh, chance: Double, at now: Date) -> Outcome {
    guard let (number, waiters) = refreshing, number == refresh else { return .late }
    refreshing = nil
    notBefore = .distantPast
    var held = Held(credentials: credentials)
    if let expiration = credentials.expiration {
      let lifetime = expiration.timeIntervalSince(now)
      if lifetime > 0 {
        let advisory = min(timing.advisory, lifetime / 4) * (1 + timing.jitter * chance)
        held.advisoryAt = expiration.addingTimeInterval(-advisory)
        held.mandatoryAt = expiration.addingTimeInterval(-min(timing.mandatory, lifetime / 10))
        held.expiresAt = expiration
      } else {
        // This host's clock is wrong, or the source has an outage and goes on with old ones, as EC2's metadata
        // service may. The service they are for decides whether they are good; there may be better ones soon.
        held.advisoryAt = now.addingTimeInterval(timing.pause)
      }
    }
    self.held = held
    return .give(credentials, waiters)
  }

  /// A refresh has failed: the old credentials are kept while they are valid.
  mutating func failed(_ refresh: Refresh, at now: Date) -> Outcome {
    guard let (number, waiters) = refreshing, number == refresh else { return .late }
    refreshing = nil
    guard let held, held.isValid(at: now) else { return .fail(waiters) }
    notBefore = now.addingTimeInterval(timing.pause)
    return .give(held.credentials, waiters)
  }

  /// Somebody waits no longer. The refresh goes on for the others.
  ///
  /// - Returns: false when it was answered already.
  mutating func leave(_ waiter: Waiter) -> Bool {
    guard let index = refreshing?.waiters.firstIndex(of: waiter) else { return false }
    refreshing?.waiters.remove(at: index)
    return true
  }

  /// The service refuses these: whoever asks next waits for others, unless there are others already.
  mutating func drop(_ refused: S3Credentials) {
    if held?.credentials == refused { held = nil }
  }
}
