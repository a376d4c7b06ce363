/// How many connections to one host are worth having: as many as there may be, if these bring more than one does.
///
/// Most clouds cap a single flow below what the interface does, and a processor is full with one long before a fast
/// interface is; a path without either is no faster with several.
package struct LaneTuner: Hashable, Sendable {
  package enum Advice: Hashable, Sendable {
    case keep
    /// So many more.
    case add(Int)
    /// So many fewer.
    case remove(Int)
  }

  /// How long to look at a number of connections before judging it, at most; as many bytes are enough, too.
  private static let interval = Duration.milliseconds(500)
  /// No rate can be told from less.
  private static let shortestInterval = Duration.milliseconds(3)
  /// What more connections must bring to be kept.
  private static let gain = 1.1

  private let maximum: Int
  private let enough: Int
  private var bytes = 0
  private var began: Duration?
  /// The rate with one connection, while more are tried.
  private var before: Double?
  /// A number is found, or there can be one only.
  private var hasConverged = false

  /// - Parameter enough: bytes that tell a rate.
  package init(maximum: Int, enough: Int) {
    self.maximum = maximum
    self.enough = enough
  }

  /// Everything begins anew: there are other hosts, too.
  package mutating func restart() {
    paused()
    before = nil
    hasConverged = false
  }

  /// What was seen so far says nothing of the connections that there are now: what arrives next begins anew.
  package mutating func paused() {
    bytes = 0
    began = nil
  }

  /// - Parameters:
  ///   - count: bytes that arrived since the last call.
  ///   - lanes: connections that are open now.
  package mutating func arrived(_ count: Int, _ now: Duration, lanes: Int) -> Advice {
    guard !hasConverged else { return .keep }
    guard let start = began else {
      // The wait for the first bytes says nothing of the rate.
      if count > 0 { began = now }
      return .keep
    }
    bytes += count
    let time = now - start
    guard time >= Self.interval || bytes >= enough && time >= Self.shortestInterval else { return .keep }
    let rate = Double(bytes) / time.inSeconds
    paused()
    if let before {
      hasConverged = true
      return lanes > 1 && rate < before * Self.gain ? .remove(lanes - 1) : .keep
    }
    guard lanes < maximum, rate > 0 else {
      hasConverged = lanes >= maximum
      return .keep
    }
    before = rate
    return .add(maximum - lanes)
  }
}
