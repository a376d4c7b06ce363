import MobulaCore

/// Which processes of this host are attached, over which connection each; which are coming back after the host's
/// process was started again; and which may not go on.
struct ProcessTable: Sendable {
  /// A connection of a process.
  typealias Connection = UInt64

  /// Who has said who it is, and perhaps a part of what it holds.
  struct Coming: Sendable, Equatable {
    var client: StoreClientID
    /// What it was known to hold.
    var known: Set<ObjectID>
    /// What it has said so far.
    var holds: [ObjectID] = []
  }

  private var attached: [Connection: StoreClientID] = [:]
  private var coming: [Connection: Coming] = [:]
  /// The jobs that processes drive.
  private var jobs: [StoreClientID: JobID] = [:]
  /// Those whose part of the store the cluster has given up.
  private var ended: Set<StoreClientID> = []
  /// Those from before, which have neither said what they hold nor ended.
  private var absent: Set<StoreClientID> = []

  /// Those that live were here before, and are to come back.
  mutating func expect(_ living: [StoreClientID]) { absent = Set(living) }

  var isAnyoneAbsent: Bool { !absent.isEmpty }

  /// One is back, or gone. True for the last of them.
  mutating func isBack(_ client: StoreClientID) -> Bool { absent.remove(client) != nil && absent.isEmpty }

  /// The process of a connection says which client of the store it is.
  ///
  /// - Throws: `MobulaError` (`mismatch`) when the cluster has given up what it had.
  mutating func attach(_ connection: Connection, _ client: StoreClientID, known: Set<ObjectID>) throws(MobulaError) {
    guard !ended.contains(client) else {
      throw MobulaError(
        .mismatch,
        "This host was away for so long that the cluster has given up what its processes had: connect anew.")
    }
    coming[connection] = Coming(client: client, known: known)
  }

  /// It says a part of what it holds.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) before it has said who it is.
  mutating func hold(_ objects: [ObjectID], coming connection: Connection) throws(MobulaError) {
    guard coming[connection] != nil else { throw Self.unknown }
    coming[connection]!.holds += objects
  }

  /// It says the last part of what it holds, and counts from now on.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) before it has said who it is.
  mutating func register(_ connection: Connection, holding objects: [ObjectID]) throws(MobulaError) -> Coming {
    guard var who = coming.removeValue(forKey: connection) else { throw Self.unknown }
    who.holds += objects
    attached[connection] = who.client
    return who
  }

  private static var unknown: MobulaError {
    MobulaError(
      .protocolViolation,
      "A process told what it holds before it told who it is: use the same mobula on both sides.")
  }

  /// - Throws: `MobulaError` (`connectionClosed`) before the process is registered and once it is gone: a late request
  ///   must leave nothing behind.
  func client(of connection: Connection) throws(MobulaError) -> StoreClientID {
    guard let client = attached[connection] else {
      throw MobulaError(
        .connectionClosed, "The process that asked is not attached: it has ended, or it must attach first.")
    }
    return client
  }

  mutating func drives(_ client: StoreClientID, _ job: JobID) { jobs[client] = job }

  /// A connection is gone. Its process may connect again.
  mutating func disconnected(_ connection: Connection) {
    coming[connection] = nil
    attached[connection] = nil
  }

  /// A process has ended.
  ///
  /// - Returns: the job that it drove.
  mutating func gone(_ client: StoreClientID) -> JobID? {
    ended.remove(client)
    attached = attached.filter { $0.value != client }
    return jobs.removeValue(forKey: client)
  }

  /// None of these may go on.
  mutating func end(_ clients: [StoreClientID]) {
    ended.formUnion(clients)
    attached = [:]
    coming = [:]
    absent = []
  }
}
