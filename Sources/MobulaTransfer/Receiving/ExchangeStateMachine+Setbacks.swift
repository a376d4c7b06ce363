internal import MobulaCore

/// *Setbacks*: hosts that were not to be reached, and are looked for again.
extension ExchangeStateMachine {
  /// Whether the host was not to be reached, or another process has its address by now: nothing of what it sent is wrong.
  static func isSetback(_ error: MobulaError) -> Bool {
    [.connectionClosed, .unavailable, .deadlineExceeded, .mismatch].contains(error.code)
  }

  /// Each time the pause is twice as long.
  mutating func setBack(_ host: HostID, _ now: Duration) {
    let count = (setbacks[host]?.count ?? 0) + 1
    setbacks[host] = (count, now + limits.shortestSetback * (1 << min(count - 1, 4)))
  }

  /// Hosts whose pause is over: the head says where they are by now. A search that is under way excludes them.
  mutating func pardon(_ now: Duration) {
    let pardoned = failedHosts.filter { setbacks[$0].map { $0.until <= now } ?? false }
    guard !pardoned.isEmpty else { return }
    failedHosts.subtract(pardoned)
    isAsking = false
    askAgain = now
  }
}
