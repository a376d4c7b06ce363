import MobulaCore

/// A connection to the head, by the number that the shell knows it by.
struct ConnectionID: Hashable, Comparable, Sendable, ExpressibleByIntegerLiteral {
  let number: UInt64

  init(_ number: UInt64) { self.number = number }
  init(integerLiteral value: UInt64) { number = value }
  static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}

/// Members of one kind, hosts or pods, with what is known of each and whether it is there.
struct MemberTable<ID: Hashable & Comparable & Sendable, Description: Sendable>: Sendable {
  enum Presence: Hashable, Sendable {
    /// Can transition to: suspected.
    case connected(ConnectionID)
    /// Its connection is gone; at the instant it counts as lost. Can transition to: connected, or out of the table.
    case suspected(until: Duration)
  }

  struct Member: Sendable {
    var description: Description
    /// Grows with every start of the member's process.
    var incarnation: UInt64
    var presence: Presence

    var connection: ConnectionID? {
      if case .connected(let connection) = presence { connection } else { nil }
    }
  }

  enum Arrival: Hashable, Sendable {
    case joined
    /// The same incarnation on another connection: it has what it had.
    case returned(former: ConnectionID?)
    /// A newer incarnation: what the former one had is gone.
    case replaced(former: ConnectionID?)
    /// A newer incarnation is known.
    case outdated(known: UInt64)
  }

  private(set) var members: [ID: Member] = [:]

  subscript(id: ID) -> Member? { members[id] }

  mutating func register(
    _ id: ID, _ description: Description, incarnation: UInt64, on connection: ConnectionID
  ) -> Arrival {
    let known = members[id]
    if let known, known.incarnation > incarnation { return .outdated(known: known.incarnation) }
    members[id] = Member(description: description, incarnation: incarnation, presence: .connected(connection))
    guard let known else { return .joined }
    let former = known.connection == connection ? nil : known.connection
    return known.incarnation == incarnation ? .returned(former: former) : .replaced(former: former)
  }

  /// Whoever was there on `connection` is suspected until `deadline`.
  mutating func disconnected(_ connection: ConnectionID, until deadline: Duration) -> [ID] {
    let ids = members.filter { $0.value.connection == connection }.map(\.key).sorted()
    for id in ids { members[id]?.presence = .suspected(until: deadline) }
    return ids
  }

  mutating func remove(_ id: ID) -> Member? { members.removeValue(forKey: id) }

  /// Whose time to come back is over.
  func overdue(at now: Duration) -> [ID] {
    members.filter {
      if case .suspected(let until) = $0.value.presence { until <= now } else { false }
    }.map(\.key).sorted()
  }

  /// When the next suspected member is overdue.
  var nextDeadline: Duration? {
    members.values.compactMap {
      if case .suspected(let until) = $0.presence { until } else { nil }
    }.min()
  }
}
