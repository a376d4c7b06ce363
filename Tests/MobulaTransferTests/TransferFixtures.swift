import Glibc
import MobulaCore
import MobulaTestKit
import MobulaWire

@testable import MobulaTransfer

/// A host with a server, as far as a transfer sees one.
struct TestHost {
  let id = HostID.random()
  let server: TransferServer

  static let token = try! ClusterToken("the-token-of-these-tests")
  static let anywhere = Endpoint.tcp(host: "127.0.0.1", port: 0)

  /// Serves `replicas` on a free port.
  init(
    serving replicas: [MemoryReplica], timeouts: TransferTimeouts = .init(), maximumConnections: Int = 256
  ) throws {
    try self.init(timeouts: timeouts, maximumConnections: maximumConnections) { object in
      replicas.first { $0.object == object }
    }
  }

  init(
    timeouts: TransferTimeouts = .init(), maximumConnections: Int = 256,
    source: @escaping @Sendable (ObjectID) -> (any ChunkSource)?,
    asked: @escaping @Sendable (ObjectID, TransferPeer) -> Void = { _, _ in }
  ) throws {
    server = try TransferServer(
      endpoint: Self.anywhere, token: Self.token, hello: Self.hello(id), maximumConnections: maximumConnections,
      timeouts: timeouts, source: source, asked: asked)
  }

  static func hello(_ host: HostID) -> Hello { Hello(role: .host, name: host.short, host: host) }

  var peer: TransferPeer { TransferPeer(host: id, bulk: server.endpoint) }

  /// Fetches from this host alone into `sink`.
  func fetch(into sink: MemoryReplica, timeouts: TransferTimeouts = .init()) async throws -> TransferReport {
    try await MobulaTransferTests.fetch(into: sink, from: [peer], timeouts: timeouts)
  }

  /// A receiver's authenticated connection, for tests that say what no receiver says.
  func connect() throws -> TransferSocket {
    let socket = try TransferSocket.connect(to: server.endpoint, peer: "the server", by: .now + .seconds(10)) { _ in }
    _ = try socket.authenticateAsClient(token: Self.token, hello: Self.hello(.random()), patience)
    return socket
  }

  func close() async {
    server.close()
    await server.waitUntilClosed()
  }
}

/// Fetches from these hosts; no others are to be had.
///
/// - Parameter own: the receiver, with where it serves what it has.
/// - Throws: what the last source failed with, if any did.
func fetch(
  into sink: MemoryReplica, from sources: [TransferPeer], own: TransferPeer? = nil,
  token: ClusterToken = TestHost.token,
  timeouts: TransferTimeouts = .init()
) async throws -> TransferReport {
  let own = own ?? TransferPeer(host: .random(), bulk: TestHost.anywhere)
  let exchange = ObjectExchange(into: sink, own: own, token: token, hello: TestHost.hello(own.host), timeouts: timeouts)
  {
    _, _ in throw MobulaError(.unavailable, "There is no other source.")
  }
  do {
    return try await exchange.run(from: sources)
  } catch let error as MobulaError where error.code == .unavailable {
    throw exchange.lastFailure ?? error
  }
}

/// Enough for anything that does happen; what waits so long has failed.
let patience = Patience(stall: .seconds(20))

/// A host that follows `script` instead of the protocol, for one connection.
func withFakeSource<Result>(
  _ script: @escaping @Sendable (TransferSocket) throws -> Void,
  _ body: (Endpoint, HostID) async throws -> Result
) async throws -> Result {
  let id = HostID.random()
  let address = try SocketAddress.resolve(TestHost.anywhere, passive: true)[0]
  let listener = SharedDescriptor(try address.listen(at: TestHost.anywhere))
  let port = try SocketAddress.port(of: listener.rawValue)
  detachThread(named: "fake source") {
    let raw = accept(listener.rawValue, nil, nil)
    guard raw >= 0 else { return }
    let socket = TransferSocket(OwnedDescriptor(owning: raw), peer: "the receiver")
    do {
      _ = try socket.authenticateAsServer(token: TestHost.token, hello: TestHost.hello(id), patience)
      try script(socket)
    } catch {}
    socket.close()
  }
  return try await body(.tcp(host: "127.0.0.1", port: port), id)
}

extension MemoryReplica {
  /// An empty replica of the same object.
  func empty() throws -> MemoryReplica { try MemoryReplica(object: object, geometry: geometry) }

  /// Suspends until chunk `index` is verified.
  func verified(_ index: Int) async throws {
    let (changes, continuation) = AsyncStream.makeStream(of: Void.self)
    let observation = observe { continuation.yield() }
    defer { withExtendedLifetime(observation) {} }
    continuation.yield()
    for await _ in changes where chunkMap.contains(index) { return }
  }

  func hasSameBytes(as other: MemoryReplica) -> Bool {
    geometry == other.geometry && memcmp(bytes.baseAddress!, other.bytes.baseAddress!, geometry.objectSize) == 0
  }
}

/// An object of `chunks` chunks of 64 KiB, the last a byte short, whose bytes follow from its id.
func makeReplica(chunks: Int, filled: Bool = true, offset: Int = 0) throws -> MemoryReplica {
  let object = ObjectID.random()
  let geometry = try ChunkGeometry(objectSize: chunks * 65_536 - 1, chunkSize: 65_536)
  return filled
    ? try MemoryReplica(object: object, geometry: geometry, offset: offset, seed: object.low)
    : try MemoryReplica(object: object, geometry: geometry, offset: offset)
}

/// The code of the error that `body` throws; `nil` when it throws none.
func errorCode(_ body: () async throws -> some Any) async -> MobulaError.Code? {
  do {
    _ = try await body()
    return nil
  } catch {
    return (error as? MobulaError)?.code
  }
}

extension TransferServer {
  /// One that serves from the beginning.
  convenience init(
    endpoint: Endpoint, token: ClusterToken, tls: ClusterTLS? = nil, hello: Hello, maximumConnections: Int = 256,
    timeouts: TransferTimeouts = .init(), traffic: TrafficControl = .init(),
    source: @escaping @Sendable (ObjectID) -> (any ChunkSource)?,
    asked: @escaping @Sendable (ObjectID, TransferPeer) -> Void = { _, _ in }
  ) throws(MobulaError) {
    try self.init(
      endpoint: endpoint, token: token, tls: tls, hello: hello, maximumConnections: maximumConnections,
      timeouts: timeouts, traffic: traffic)
    start(source: source, asked: asked)
  }
}
