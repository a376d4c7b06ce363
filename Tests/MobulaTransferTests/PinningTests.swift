import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaTransfer

/// A pinned replica, as a store hands it out: released with its last reference.
private final class Pin: ChunkSource {
  let replica: MemoryReplica
  let released: AsyncStream<Void>.Continuation

  init(_ replica: MemoryReplica, released: AsyncStream<Void>.Continuation) {
    self.replica = replica
    self.released = released
  }

  deinit { released.finish() }

  var object: ObjectID { replica.object }
  var geometry: ChunkGeometry { replica.geometry }
  var descriptor: CInt { replica.descriptor }
  var offset: Int { replica.offset }
  var digest: ObjectDigest? { replica.digest }
  var isOrigin: Bool { replica.isOrigin }
  var chunkMap: ChunkMap { replica.chunkMap }
  var failure: MobulaError? { replica.failure }
  func checksum(of index: Int) -> UInt32 { replica.checksum(of: index) }
  func observe(_ body: @escaping @Sendable () -> Void) -> any AnyObject & Sendable { replica.observe(body) }
}

/// Holds a pin until it is taken, and remembers whether it is still alive.
private final class PinBox: Sendable {
  private struct State {
    var pin: Pin?
    weak var last: Pin?
  }
  private let state: Mutex<State>

  init(_ pin: Pin) { state = Mutex(State(pin: pin, last: pin)) }

  func take() -> Pin? {
    state.withLock { state in
      defer { state.pin = nil }
      return state.pin
    }
  }

  var isPinned: Bool { state.withLock { $0.last != nil } }
}

@Suite(.timeLimit(.minutes(2))) struct PinningTests {
  private func serve(
    _ replica: MemoryReplica, timeouts: TransferTimeouts
  ) throws -> (host: TestHost, pin: PinBox, released: AsyncStream<Void>) {
    let (released, continuation) = AsyncStream.makeStream(of: Void.self)
    let box = PinBox(Pin(replica, released: continuation))
    return (try TestHost(timeouts: timeouts) { _ in box.take() }, box, released)
  }

  /// Opens the object, and asks for a chunk once it is offered.
  private func askForChunk(_ chunk: Int, of replica: MemoryReplica, over socket: TransferSocket) throws {
    try socket.send(.open(replica.object, bulk: ""))
    #expect(
      try socket.receiveMessage(patience)
        == .opened(
          objectSize: replica.geometry.objectSize, chunkSize: replica.geometry.chunkSize, wantsNews: replica.isOrigin))
    var offered = false
    while !offered {
      if case .offer(let ranges) = try socket.receiveMessage(patience) {
        offered = ranges.contains { $0.contains(chunk) }
      }
    }
    try socket.send(.request(chunk))
  }

  /// Opens the object, asks for chunk 0 and takes in its header and bytes.
  private func takeChunk(of replica: MemoryReplica, over socket: TransferSocket) throws {
    try askForChunk(0, of: replica, over: socket)
    var message = try socket.receiveMessage(patience)
    while message == .alive { message = try socket.receiveMessage(patience) }
    guard case .chunk(let header) = message else {
      Issue.record("no chunk came, but \(message)")
      return
    }
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: header.length, alignment: 1)
    defer { memory.deallocate() }
    try socket.receive(into: memory, patience)
    #expect(crc32c(UnsafeRawBufferPointer(memory)) == header.checksum)
  }

  @Test func aReceiverThatDoesNotAcknowledgeKeepsThePinUntilItsConnectionIsGone() async throws {
    let replica = try makeReplica(chunks: 2)
    let (host, pin, released) = try serve(replica, timeouts: .init())
    let socket = try host.connect()
    try takeChunk(of: replica, over: socket)
    // Everything was received, but nobody said so.
    #expect(pin.isPinned)
    socket.close()
    for await _ in released {}
    #expect(!pin.isPinned)
    await host.close()
  }

  @Test func anIdleReceiverIsCutOff() async throws {
    let replica = try makeReplica(chunks: 2)
    let (host, pin, released) = try serve(replica, timeouts: TransferTimeouts(idle: .milliseconds(50)))
    let socket = try host.connect()
    try takeChunk(of: replica, over: socket)
    for await _ in released {}
    #expect(!pin.isPinned)
    #expect(await errorCode { try socket.receiveMessage(patience) } == .connectionClosed)
    socket.close()
    await host.close()
  }

  @Test func aReceiverThatTakesNothingIsCutOff() async throws {
    // Far more than the kernel buffers between two sockets.
    let geometry = try ChunkGeometry(objectSize: 67_108_864, chunkSize: 67_108_864)
    let replica = try MemoryReplica(object: .random(), geometry: geometry)
    replica.commit(0, checksum: 0)
    let (host, pin, released) = try serve(replica, timeouts: TransferTimeouts(idle: .milliseconds(100)))
    let socket = try host.connect()
    try askForChunk(0, of: replica, over: socket)
    for await _ in released {}
    #expect(!pin.isPinned)
    #expect(host.server.bytesSent < 67_108_864)
    socket.close()
    await host.close()
  }

  @Test func aReceiverThatWaitsForAPartialReplicaIsToldSoAndNotCutOff() async throws {
    let replica = try makeReplica(chunks: 2, filled: false)
    let (host, pin, _) = try serve(
      replica, timeouts: TransferTimeouts(idle: .milliseconds(40), keepalive: .milliseconds(20)))
    let socket = try host.connect()
    try socket.send(.open(replica.object, bulk: ""))
    _ = try socket.receiveMessage(patience)
    for _ in 0..<5 { #expect(try socket.receiveMessage(patience) == .alive) }
    #expect(pin.isPinned)
    replica.fill(1, seed: 1)
    var message = TransferMessage.alive
    while message == .alive { message = try socket.receiveMessage(patience) }
    #expect(message == .offer([1..<2]))
    try socket.send(.request(1))
    message = .alive
    while message == .alive { message = try socket.receiveMessage(patience) }
    #expect(message == .chunk(ChunkHeader(index: 1, length: 65_535, checksum: replica.checksum(of: 1))))
    socket.close()
    await host.close()
  }

  @Test func memoryUnderAStalledReceiverStaysAsItIs() async throws {
    // Far more than the kernel buffers between two sockets: most of it leaves only when the receiver takes it.
    let geometry = try ChunkGeometry(objectSize: 33_554_432, chunkSize: 16_777_216)
    let replica = try MemoryReplica(object: .random(), geometry: geometry, seed: 5)
    let (host, pin, released) = try serve(replica, timeouts: .init())
    let socket = try host.connect()
    try askForChunk(1, of: replica, over: socket)
    // The store would use the memory again as soon as the pin is gone: it must not go before the bytes have.
    guard case .chunk(let header) = try socket.receiveMessage(patience) else {
      Issue.record("no chunk came")
      return
    }
    #expect(pin.isPinned)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: header.length, alignment: 1)
    defer { memory.deallocate() }
    try socket.receive(into: memory, patience)
    #expect(crc32c(UnsafeRawBufferPointer(memory)) == header.checksum)
    #expect(pin.isPinned)
    try socket.send(TransferMessage.acknowledge(1).frame + TransferMessage.done.frame)
    for await _ in released {}
    // From here on the memory may change, and nobody sees it.
    replica.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    #expect(await errorCode { try socket.receiveMessage(patience) } == .connectionClosed)
    socket.close()
    await host.close()
  }

  @Test func closingTheServerEndsEveryThreadAndReleasesEveryPin() async throws {
    let replica = try makeReplica(chunks: 2, filled: false)
    let (host, pin, _) = try serve(replica, timeouts: TransferTimeouts(keepalive: .milliseconds(10)))
    let socket = try host.connect()
    try socket.send(.open(replica.object, bulk: ""))
    _ = try socket.receiveMessage(patience)
    let silent = try host.connect()
    await host.close()
    #expect(!pin.isPinned)
    #expect(host.server.connectionCount == 0)
    socket.close()
    silent.close()
  }
}
