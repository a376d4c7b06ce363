import MobulaCore
import MobulaStore
import MobulaWire
import Synchronization

/// Which store client each connected process is.
final class ClientTable: Sendable {
  private let clients = Mutex<[UInt64: StoreClientID]>([:])
  /// The jobs that processes drive.
  private let jobs = Mutex<[StoreClientID: JobID]>([:])
  /// The connections of those that attached.
  private let connections = Mutex<[UInt64: RPCConnection]>([:])
  /// Clients of the store that may not go on, since the cluster has given up what they had.
  private let ended = Mutex<Set<StoreClientID>>([])
  /// Those that have said who they are, and not yet what they hold; and what they were known to hold.
  private let coming = Mutex<[UInt64: Coming]>([:])

  /// Who has said who it is, and perhaps a part of what it holds.
  struct Coming {
    var client: StoreClientID
    /// What it was known to hold.
    var known: Set<ObjectID>
    /// What it has said so far.
    var holds: [ObjectID] = []
  }

  /// Clients of the store before this one, whose processes have neither said what they hold nor ended.
  private let absentees = Mutex<Set<StoreClientID>>([])

  /// Who holds everything in their stead; no client has this number.
  static let absent: UInt64 = 0

  /// Those that live were here before, and are to come back.
  func expect(_ living: () -> [StoreClientID]) {
    // Whoever ends meanwhile waits in `isBack` for this.
    absentees.withLock { $0 = Set(living()) }
  }

  var areAllBack: Bool { absentees.withLock(\.isEmpty) }

  /// One is back, or gone. True for the last of them.
  func isBack(_ client: StoreClientID) -> Bool {
    absentees.withLock { $0.remove(client) != nil && $0.isEmpty }
  }

  /// The process of a connection says which client it is.
  ///
  /// - Throws: `MobulaError` (`mismatch`) when the cluster has given up what it had.
  func attach(
    _ connection: RPCConnection, _ client: StoreClientID, known: Set<ObjectID>
  ) throws(MobulaError) {
    guard !ended.withLock({ $0.contains(client) }) else {
      throw MobulaError(
        .mismatch,
        "This host was away for so long that the cluster has given up what its processes had: connect anew.")
    }
    connections.withLock { $0[connection.id] = connection }
    coming.withLock { $0[connection.id] = Coming(client: client, known: known) }
  }

  func drives(_ client: StoreClientID, _ job: JobID) { jobs.withLock { $0[client] = job } }

  /// The job that a process drove which has ended.
  func takeJob(of client: StoreClientID) -> JobID? { jobs.withLock { $0.removeValue(forKey: client) } }

  /// These may not go on. Returns the connections of all that are there.
  func end(_ clients: [StoreClientID]) -> [RPCConnection] {
    ended.withLock { $0.formUnion(clients) }
    self.clients.withLock { $0 = [:] }
    coming.withLock { $0 = [:] }
    absentees.withLock { $0 = [] }
    return connections.withLock { connections in
      defer { connections = [:] }
      return Array(connections.values)
    }
  }

  /// It has said what it holds, too, and counts from now on.
  func registered(_ connection: UInt64, _ client: StoreClientID) { clients.withLock { $0[connection] = client } }

  /// Who is about to register.
  func takeComing(_ connection: UInt64) -> Coming? {
    coming.withLock { $0.removeValue(forKey: connection) }
  }

  /// It says a part of what it holds.
  func hold(_ objects: [ObjectID], coming connection: UInt64) {
    coming.withLock { $0[connection]?.holds += objects }
  }

  func forget(_ client: StoreClientID) {
    _ = ended.withLock { $0.remove(client) }
    clients.withLock { $0 = $0.filter { $0.value != client } }
  }

  /// - Throws: `MobulaError` (`connectionClosed`) before the process attached and once it is gone: a late request must leave nothing behind.
  func client(of connection: UInt64) throws(MobulaError) -> StoreClientID {
    guard let client = clients.withLock({ $0[connection] }) else {
      throw MobulaError(
        .connectionClosed, "The process that asked is not attached: it has ended, or it must attach first.")
    }
    return client
  }

  /// Does something for a process, which can't be removed meanwhile.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) when it is gone.
  func whileAttached(_ connection: UInt64, _ body: (StoreClientID) -> Void) throws(MobulaError) {
    let isAttached = clients.withLock { clients in
      guard let client = clients[connection] else { return false }
      body(client)
      return true
    }
    guard isAttached else { throw MobulaError(.connectionClosed, "The process that asked has ended.") }
  }

  func remove(_ connection: UInt64) {
    connections.withLock { $0[connection] = nil }
    _ = takeComing(connection)
    clients.withLock { $0[connection] = nil }
  }
}

/// Something that others need before it can be made.
final class Once<Value: Sendable>: Sendable {
  private let content = Mutex<Value?>(nil)
  private let name: String

  init(_ name: String) { self.name = name }

  func fill(_ value: Value) { content.withLock { if $0 == nil { $0 = value } } }

  var filled: Value? { content.withLock { $0 } }

  /// - Precondition: filled.
  var value: Value {
    guard let value = filled else { preconditionFailure("\(name) is used before it is made") }
    return value
  }
}
