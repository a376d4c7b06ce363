import MobulaS3

/// Decides how many parts of an object this host reads from S3 at once.
///
/// Alone it begins with many. While other hosts are connected to it begins with two, because S3's packets would delay
/// what hosts tell each other on the same link, and adds more as long as these bring more bytes a second from
/// everywhere together: on a link that is full they bring none.
///
/// Instants are durations since any common instant.
struct PartConcurrency: Sendable {
  private var alone: S3ConcurrencyStateMachine
  private var besideHosts: S3ConcurrencyStateMachine
  private var hasHosts = false
  /// Parts that are read at this moment.
  private(set) var running = 0
  /// The bytes that were missing at the last look.
  private var missing: Int?

  /// - Parameter maximum: parts at once, at most.
  init(maximum: Int) {
    alone = S3ConcurrencyStateMachine(.init(maximum: maximum, initial: 8, smallestPart: 1))
    besideHosts = S3ConcurrencyStateMachine(.init(maximum: maximum, initial: 2, smallestPart: 1))
  }

  private var limit: Int { hasHosts ? besideHosts.limit : alone.limit }

  /// One more part is to be read.
  ///
  /// - Returns: whether it may be.
  mutating func begins() -> Bool {
    guard running < limit else { return false }
    running += 1
    return true
  }

  /// Whether who has read a part should leave it at that: more run than should.
  var isAbove: Bool { running > limit }

  mutating func ended() { running -= 1 }

  /// - Parameters:
  ///   - missing: bytes of the object that are not here yet, wherever they come from.
  ///   - hasHosts: whether other hosts are connected to.
  mutating func tick(missing: Int, hasHosts: Bool, now: Duration) {
    defer { self.missing = missing }
    if self.hasHosts != hasHosts {
      self.hasHosts = hasHosts
      change { $0.measureAnew(at: now) }
    } else if running < limit {
      // What so many would bring is not known while fewer run.
      change { $0.measureAnew(at: now) }
    } else if let before = self.missing {
      change { $0.received(max(0, before - missing), at: now) }
    }
  }

  /// S3 asks for less.
  ///
  /// - Parameter start: when that part was begun.
  mutating func throttled(startedAt start: Duration, now: Duration) {
    alone.slowDown(startedAt: start, at: now)
    besideHosts.slowDown(startedAt: start, at: now)
  }

  private mutating func change(_ body: (inout S3ConcurrencyStateMachine) -> Void) {
    if hasHosts { body(&besideHosts) } else { body(&alone) }
  }
}
