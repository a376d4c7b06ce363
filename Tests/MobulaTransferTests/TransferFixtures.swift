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
    source: @escaping @Sendable (ObjectID) -> (any ChunkSource)?
  ) throws {
    server = try TransferServer(
      endpoint: Self.anywhere, token: Self.token, hello: Self.hello(id), maximumConnections: maximumConnections,
      timeouts: timeouts, source: source)
  }

  static func hello(_ host: HostID) -> Hello { Hello(role: .host, name: host.short, host: host) }

  /// Fetches from this host into `sink`.
  func fetch(
    into sink: MemoryReplica, timeouts: TransferTimeouts = .init(), deadline: ContinuousClock.Instant? = nil
  ) async throws -> TransferReport {
    try await fetchChunks(
      into: sink, from: server.endpoint, token: Self.token, hello: Self.hello(.random()), expecting: id,
      timeouts: timeouts, deadline: deadline)
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
    _ = try await onThread(named: "await chunk") { try self.waitForChunk(index, until: .now + .seconds(20)) }
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
