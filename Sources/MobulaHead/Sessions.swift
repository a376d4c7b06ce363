internal import MobulaControl
internal import MobulaCore
internal import MobulaWire

/// The connections and the callers behind the numbers that the state knows them by.
struct Sessions: Sendable {
  private struct Peer: Sendable {
    let connection: RPCConnection
    /// Calls on it that are not answered, and may have the state keep its number.
    var calls = 0
    /// Whether the state knows its number, and is told when it is gone.
    var isWatched = false
  }

  private var peers: [ConnectionID: Peer] = [:]
  private var waiting: [RequestID: CheckedContinuation<ClusterReply, any Error>] = [:]
  private var lastRequest = RequestID(0)

  subscript(id: ConnectionID) -> RPCConnection? { peers[id]?.connection }

  // MARK: Connections

  mutating func begin(_ connection: RPCConnection) {
    peers[connection.number, default: Peer(connection: connection)].calls += 1
  }

  /// A call is over: its connection is forgotten, unless the state has come to know it.
  mutating func end(_ id: ConnectionID) {
    peers[id]?.calls -= 1
    forgetUnused(id)
  }

  mutating func watch(_ id: ConnectionID) -> RPCConnection? {
    peers[id]?.isWatched = true
    return peers[id]?.connection
  }

  mutating func closed(_ id: ConnectionID) {
    peers[id]?.isWatched = false
    forgetUnused(id)
  }

  private mutating func forgetUnused(_ id: ConnectionID) {
    if let peer = peers[id], peer.calls == 0, !peer.isWatched { peers[id] = nil }
  }

  // MARK: Callers

  mutating func newRequest() -> RequestID {
    lastRequest = RequestID(lastRequest.number + 1)
    return lastRequest
  }

  mutating func wait(for id: RequestID, _ continuation: CheckedContinuation<ClusterReply, any Error>) {
    waiting[id] = continuation
  }

  mutating func take(_ id: RequestID) -> CheckedContinuation<ClusterReply, any Error>? {
    waiting.removeValue(forKey: id)
  }
}

extension RPCConnection {
  /// As the state knows it.
  var number: ConnectionID { ConnectionID(id) }
}
