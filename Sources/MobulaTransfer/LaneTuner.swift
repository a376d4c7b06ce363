/// How many connections to one host are worth having: one more as long as that brings more.
///
/// Most clouds cap a single flow below what the interface does; a path without such a cap is no faster with two.
package struct LaneTuner: Hashable, Sendable {
  package enum Advice: Hashable, Sendable { case keep, add, remove }

  /// How long to look at a number before judging it.
  private static let interval = Duration.milliseconds(500)
  /// What one more connection must bring to be kept.
  private static let gain = 1.1

  private let maximum: Int
  private var bytes = 0
  private var began: Duration?
  /// The rate with one connection less, while one more is tried.
  private var before: Double?
  /// The number that is good, once more was tried and was not better.
  private var isSettled = false

  package init(maximum: Int) { self.maximum = maximum }

  package mutating func arrived(_ count: Int) { bytes += count }

  /// Something else changed: what was seen so far says nothing.
  package mutating func restart(_ now: Duration) {
    bytes = 0
    began = now
    before = nil
  }

  /// - Parameter lanes: connections that are open now.
  package mutating func tick(_ now: Duration, lanes: Int) -> Advice {
    guard let start = began else {
      restart(now)
      return .keep
    }
    guard !isSettled, now - start >= Self.interval else { return .keep }
    let rate = Double(bytes) / (now - start).inSeconds
    bytes = 0
    began = now
    if let before, rate < before * Self.gain {
      isSettled = true
      self.before = nil
      return lanes > 1 ? .remove : .keep
    }
    guard lanes < maximum, rate > 0 else {
      isSettled = true
      return .keep
    }
    before = rate
    return .add
  }
}
