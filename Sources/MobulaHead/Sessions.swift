internal import MobulaControl
internal import MobulaCore
internal import MobulaWire
internal import Synchronization

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
  private var waiting: [RequestID: HeadCaller] = [:]
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

  mutating func wait(for id: RequestID, _ caller: HeadCaller) { waiting[id] = caller }

  mutating func take(_ id: RequestID) -> HeadCaller? { waiting.removeValue(forKey: id) }
}

/// Who waits for the answer to a question.
enum HeadCaller: Sendable {
  case one(CheckedContinuation<ClusterReply, any Error>)
  /// One that has asked several.
  case among(HeadQuestions, Int)

  func resume(with result: Result<ClusterReply, any Error>) {
    switch self {
    case .one(let continuation): continuation.resume(with: result)
    case .among(let questions, let index): questions.answered(index, result)
    }
  }
}

/// Questions that one caller has asked at once, and waits for all of their answers.
final class HeadQuestions: Sendable {
  private struct State {
    var answers: [ClusterReply?]
    var left: Int
    var continuation: CheckedContinuation<[ClusterReply?], Never>?
  }

  private let state: Mutex<State>

  /// - Parameter count: at least one.
  init(_ count: Int, _ continuation: CheckedContinuation<[ClusterReply?], Never>) {
    state = Mutex(State(answers: Array(repeating: nil, count: count), left: count, continuation: continuation))
  }

  /// Once for each.
  func answered(_ index: Int, _ result: Result<ClusterReply, any Error>) {
    let done = state.withLock { state -> (CheckedContinuation<[ClusterReply?], Never>, [ClusterReply?])? in
      state.answers[index] = try? result.get()
      state.left -= 1
      guard state.left == 0, let continuation = state.continuation.take() else { return nil }
      return (continuation, state.answers)
    }
    if let (continuation, answers) = done { continuation.resume(returning: answers) }
  }
}

extension RPCConnection {
  /// As the state knows it.
  var number: ConnectionID { ConnectionID(id) }
}
