import MobulaCore

/// When a receiver that was given a source must have reported that it can serve.
struct SourceExpiry: Hashable, Sendable {
  var deadline: Duration
  var object: ObjectID
  var receiver: HostID
}

extension ObjectDirectoryStateMachine {
  /// When `tick` has something to do, at the earliest.
  var nextExpiry: Duration? { expiries.first?.deadline }

  /// Time has passed: a receiver that was given a source and has not reported `partial` since
  /// won't take the object, for all that is known. Whoever waits for it gets another source.
  ///
  /// One that is only late may go on; it is no source itself before it is complete or asks again.
  mutating func tick(_ now: Duration) -> [DirectoryAction] {
    advance(to: now)
    var objects: [ObjectID] = []
    for expiry in expiries.prefix(while: { $0.deadline <= now }) where isPending(expiry) {
      records[expiry.object]?.graph.detach(expiry.receiver)
      objects.append(expiry.object)
    }
    expiries = expiries.filter(isPending)
    return settle(objects)
  }

  private func isPending(_ expiry: SourceExpiry) -> Bool {
    records[expiry.object]?.graph.deadlines[expiry.receiver] == expiry.deadline
  }
}
