import MobulaCore

/// A connection to the head, by the number that the shell knows it by.
package struct ConnectionID: Hashable, Comparable, Sendable, ExpressibleByIntegerLiteral {
  package let number: UInt64

  package init(_ number: UInt64) { self.number = number }
  package init(integerLiteral value: UInt64) { number = value }
  package static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}

/// Which process of a member it is, as the process says when it registers.
struct ProcessIdentity: Hashable, Sendable {
  /// Drawn at its start; `nil` for a process that counts its own starts.
  var nonce: ProcessNonce?
  /// What a head has called it by; 0 before one has. Of a process without a nonce, the number of its own.
  var incarnation: UInt64

  /// The highest that is believed: it leaves room for more.
  static let highest: UInt64 = 1 << 62
}

/// Members of one kind, hosts or pods, with what is known of each and whether it is there.
struct MemberTable<ID: Hashable & Comparable & Sendable, Description: Sendable>: Sendable {
  enum Presence: Hashable, Sendable {
    /// Can transition to: suspected.
    case connected(ConnectionID)
    /// Its connection is gone; at the instant it counts as absent. Can transition to: connected, absent.
    case suspected(until: Duration)
    /// Away for so long that nobody waits for it: what it has and holds still counts. Can transition to: connected,
    /// retired.
    case absent(since: Duration)
    /// It has nothing any more. Can transition to: connected.
    case retired
  }

  struct Member: Sendable {
    var description: Description
    var process: ProcessIdentity
    /// Grows whenever the member is declared absent: what was agreed in an older session is over.
    var session: UInt64 = 1
    var presence: Presence
    /// Whether it has registered at this head.
    var isHeard = true

    var connection: ConnectionID? {
      if case .connected(let connection) = presence { connection } else { nil }
    }

    var isPresent: Bool {
      switch presence {
      case .connected, .suspected: true
      case .absent, .retired: false
      }
    }
  }

  enum Arrival: Hashable, Sendable {
    case joined
    /// The same process on another connection: it has what it had.
    case returned(former: ConnectionID?)
    /// Another process: the former one's is over.
    case replaced(former: ConnectionID?)
    /// A process that another one has taken the place of.
    case outdated(known: UInt64)
  }

  private(set) var members: [ID: Member] = [:]
  /// In the order of their retirement.
  private var retired: [ID] = []
  /// How many of the retired are remembered.
  private static var maximumRetired: Int { 4096 }

  subscript(id: ID) -> Member? { members[id] }

  /// A process registers.
  ///
  /// One that no head has numbered takes the place of the one that is known. One that was numbered, and is not the
  /// one that is known, was superseded, unless its number is higher: then this head knows less than it.
  mutating func register(
    _ id: ID, _ description: Description, _ process: ProcessIdentity, on connection: ConnectionID,
    session: UInt64? = nil
  ) -> Arrival {
    guard let known = members[id], known.presence != .retired else {
      let before = members[id]
      retired.removeAll { $0 == id }
      var process = process
      if process.nonce != nil { process.incarnation = max(process.incarnation, (before?.process.incarnation ?? 0) + 1) }
      members[id] = Member(
        description: description, process: process, session: max(before?.session ?? 1, session ?? 1),
        presence: .connected(connection))
      return .joined
    }
    guard let number = number(of: process, after: known.process) else {
      return .outdated(known: known.process.incarnation)
    }
    members[id] = Member(
      description: description, process: ProcessIdentity(nonce: process.nonce, incarnation: number),
      session: known.session, presence: .connected(connection))
    let former = known.connection == connection ? nil : known.connection
    return number == known.process.incarnation ? .returned(former: former) : .replaced(former: former)
  }

  /// The incarnation and session that a process would be in if it registered; `nil` for one that was superseded.
  ///
  /// - Parameter session: the one that it was last told.
  func outcome(
    of process: ProcessIdentity, as id: ID, session: UInt64? = nil
  ) -> (incarnation: UInt64, session: UInt64)? {
    guard let known = members[id] else {
      return (process.nonce == nil ? process.incarnation : max(process.incarnation, 1), session ?? 1)
    }
    if known.presence == .retired {
      return (max(process.incarnation, known.process.incarnation + 1), max(known.session, session ?? 1))
    }
    return number(of: process, after: known.process).map { ($0, known.session) }
  }

  /// The incarnation that a process is; `nil` for one that was superseded.
  private func number(of process: ProcessIdentity, after known: ProcessIdentity) -> UInt64? {
    if process.nonce == known.nonce, process.nonce != nil { return known.incarnation }
    if process.nonce != nil, process.incarnation == 0 { return known.incarnation + 1 }
    if process.nonce == nil, known.nonce == nil {
      return process.incarnation >= known.incarnation ? process.incarnation : nil
    }
    return process.incarnation > known.incarnation ? process.incarnation : nil
  }

  /// Whoever was there on `connection` is suspected until `deadline`.
  mutating func disconnected(_ connection: ConnectionID, until deadline: Duration) -> [ID] {
    let ids = members.filter { $0.value.connection == connection }.map(\.key).sorted()
    for id in ids { members[id]?.presence = .suspected(until: deadline) }
    return ids
  }

  /// Nobody waits for it any more.
  ///
  /// - Returns: the connection that it still has.
  mutating func setAbsent(_ id: ID, since now: Duration) -> ConnectionID? {
    guard let member = members[id], member.isPresent else { return nil }
    members[id]?.presence = .absent(since: now)
    members[id]?.session += 1
    return member.connection
  }

  /// What was agreed with it before is over.
  mutating func beginSession(_ id: ID) { members[id]?.session += 1 }

  /// It has nothing any more.
  mutating func retire(_ id: ID) {
    guard members[id] != nil, members[id]?.presence != .retired else { return }
    members[id]?.presence = .retired
    members[id]?.session += 1
    retired.append(id)
    if retired.count > Self.maximumRetired { members[retired.removeFirst()] = nil }
  }

  /// What a head before this one has written down.
  mutating func load(_ id: ID, _ member: Member) {
    members[id] = member
    if member.presence == .retired { retired.append(id) }
  }

  /// Whose time to come back is over.
  func overdue(at now: Duration) -> [ID] {
    members.filter {
      if case .suspected(let until) = $0.value.presence { until <= now } else { false }
    }.map(\.key).sorted()
  }

  /// Who has been absent for as long.
  func absent(for time: Duration, at now: Duration) -> [ID] {
    members.filter {
      if case .absent(let since) = $0.value.presence { since + time <= now } else { false }
    }.map(\.key).sorted()
  }

  /// When the next suspected member is overdue, or the next absent one has been away for `time`.
  func nextDeadline(retiringAfter time: Duration) -> Duration? {
    members.values.compactMap {
      switch $0.presence {
      case .suspected(let until): until
      case .absent(let since): since + time
      case .connected, .retired: nil
      }
    }.min()
  }
}
