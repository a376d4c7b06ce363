internal import CMobula
internal import Glibc
internal import MobulaCore
internal import Synchronization

/// Answers clients at the store's socket, each connection on a thread of its own: calls are rare, and some wait for room.
final class StoreServer: Sendable {
  private struct State {
    var listener: SharedDescriptor?
    var connections: [UInt64: SharedDescriptor] = [:]
    var next: UInt64 = 1
    var isListening = false
  }

  /// More than that, and who connects waits.
  private static let largestCount = 4096
  private let path: String
  private let state = Monitor(State())

  /// - Throws: `MobulaError` (`invalidArgument`) for a path that no socket can have.
  init(path: String) throws(MobulaError) {
    try UnixSocket.check(path)
    self.path = path
  }

  func start(_ store: Store) throws(MobulaError) {
    let listener = SharedDescriptor(try UnixSocket.listen(at: path, type: SOCK_SEQPACKET))
    state.update {
      $0.listener = listener
      $0.isListening = true
    }
    detachThread(named: "store socket") { [weak store, weak self] in
      while true {
        let raw = mobula_accept(listener.rawValue)
        guard let self, let store else {
          if raw >= 0 { Glibc.close(raw) }
          return
        }
        if raw >= 0 {
          self.serve(SharedDescriptor(OwnedDescriptor(owning: raw)), store)
        } else if errno == EMFILE || errno == ENFILE {
          usleep(10_000)
        } else if errno != EINTR && errno != ECONNABORTED {
          self.state.update { $0.isListening = false }
          return
        }
      }
    }
  }

  private func serve(_ socket: SharedDescriptor, _ store: Store) {
    let limit = ContinuousClock.now + StoreProtocol.patience
    let room = try? state.wait(until: limit) { state in state.connections.count < Self.largestCount ? true : nil }
    guard room == true else { return }
    let number = state.update { state in
      state.next += 1
      state.connections[state.next] = socket
      return state.next
    }
    detachThread(named: "store client") { [weak store] in
      StoreConversation(socket: socket).run { store }
      self.state.update { $0.connections[number] = nil }
    }
  }

  /// Removes the socket, and ends all conversations.
  ///
  /// - Parameter end: when those are left alone that still wait for something.
  func close(until end: ContinuousClock.Instant) {
    let (listener, connections) = state.update { state in
      defer { state.listener = nil }
      return (state.listener, Array(state.connections.values))
    }
    guard let listener else { return }
    unlink(path)
    shutdown(listener.rawValue, CInt(SHUT_RDWR))
    for connection in connections { shutdown(connection.rawValue, CInt(SHUT_RDWR)) }
    _ = try? state.wait(until: end) { $0.isListening || !$0.connections.isEmpty ? nil : () }
  }
}

/// One connection to the store's socket.
struct StoreConversation {
  let socket: SharedDescriptor
  private var client: StoreClientID?

  init(socket: SharedDescriptor) { self.socket = socket }

  consuming func run(_ store: () -> Store?) {
    // Until it has shown who it is, nobody waits for it for long.
    try? UnixSocket.setTimeout(StoreProtocol.patience, SO_RCVTIMEO, on: socket.rawValue)
    try? UnixSocket.setTimeout(StoreProtocol.patience, SO_SNDTIMEO, on: socket.rawValue)
    while case .packet(let packet) = PacketSocket.receive(
      from: socket.rawValue, waits: true, largest: StoreProtocol.largestPacket)
    {
      guard let store = store() else { break }
      guard let (words, text) = StoreProtocol.decode(packet.bytes), words.count >= 2, words[0] == StoreProtocol.magic
      else {
        let error = MobulaError(
          .mismatch, "The store speaks another version: use the same mobula on both sides.")
        _ = PacketSocket.send(StoreProtocol.encode(error), to: socket.rawValue)
        break
      }
      let before = client
      do throws(MobulaError) {
        let answer = try answer(Array(words.dropFirst()), text, packet.descriptors, store)
        let descriptors = answer.descriptors.map(\.rawValue)
        guard PacketSocket.send(StoreProtocol.encode([0] + answer.words), descriptors, to: socket.rawValue) == 0 else {
          break
        }
        withExtendedLifetime(answer) {}
      } catch {
        guard PacketSocket.send(StoreProtocol.encode(error), to: socket.rawValue) == 0, client != nil else { break }
      }
      if before == nil, client != nil { try? UnixSocket.setTimeout(.zero, SO_RCVTIMEO, on: socket.rawValue) }
    }
    if let client { store()?.disconnected(client) }
  }

  private mutating func answer(
    _ words: [UInt64], _ text: String, _ descriptors: [SharedDescriptor], _ store: Store
  ) throws(MobulaError) -> StoreProtocol.Answer {
    guard let operation = StoreProtocol.Operation(rawValue: words[0]) else { throw Self.malformed }
    let words = Array(words.dropFirst())
    func need(_ count: Int) throws(MobulaError) { if words.count != count { throw Self.malformed } }
    switch operation {
    case .attach:
      try need(2)
      guard client == nil, descriptors.count <= 1 else { throw Self.malformed }
      let ticket = DescriptorTicket(high: words[0], low: words[1])
      let answer = try store.attach(
        ticket, name: String(text.prefix(100)), process: descriptors.first, socket: socket.rawValue)
      client = StoreClientID(answer.words[0])
      return answer
    case .resume:
      try need(3)
      guard client == nil else { throw Self.malformed }
      let id = StoreClientID(words[0])
      let incarnation = try store.resume(id, secret: ClientSecret(high: words[1], low: words[2]))
      client = id
      return .init(words: [incarnation])
    default: break
    }
    guard let client else {
      throw MobulaError(.unauthenticated, "The store was asked by somebody who did not attach: attach with a ticket.")
    }
    func object() -> ObjectID { ObjectID(high: words[0], low: words[1]) }
    switch operation {
    case .attach, .resume: throw Self.malformed
    case .segment:
      try need(1)
      return try store.segment(SegmentID(words[0]))
    case .grow:
      try need(2)
      guard words[0] < 1 << 40 else { throw Self.malformed }
      let grant = try store.grow(client, Int(words[0]), within: words[1])
      return .init(words: [UInt64(grant?.lowerBound ?? 0), UInt64(grant?.count ?? 0)])
    case .create:
      try need(4)
      guard words[2] < 1 << 56 else { throw Self.malformed }
      let offset = try store.create(object(), footprint: Int(words[2]), client: client, within: words[3])
      return .init(words: [UInt64(offset)])
    case .abort:
      try need(3)
      guard words[2] < 1 << 56 else { throw Self.malformed }
      store.abort(object(), offset: Int(words[2]), client: client)
      return .init()
    case .detach:
      try need(0)
      self.client = nil
      store.clientEnded(client)
      return .init()
    case .confirm:
      try need(2)
      try store.confirm(object(), client: client)
      return .init()
    case .pin:
      try need(2)
      return try store.pin(object(), client: client)
    case .spilled:
      try need(2)
      return .init(descriptors: [try store.spillFile(of: object()).descriptor])
    }
  }

  private static let malformed = MobulaError(.protocolViolation, "The store got a request that it does not know.")
}
