import Glibc
import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaTransfer
@testable import MobulaWire

@Suite(.timeLimit(.minutes(2))) struct TransferTLSTests {
  private let certificates: TestCertificates
  private let token = ClusterToken.random()
  private let patience = Patience(stall: .seconds(10))

  init() throws { certificates = try TestCertificates() }

  private func hello(_ host: HostID) -> Hello { Hello(role: .host, name: host.short, host: host) }

  private func withServer<Result>(
    _ tls: ClusterTLS?, serving replica: MemoryReplica? = nil,
    _ body: (TransferServer, HostID) async throws -> Result
  ) async throws -> Result {
    let host = HostID.random()
    let server = try TransferServer(
      endpoint: .tcp(host: "127.0.0.1", port: 0), token: token, tls: tls, hello: hello(host)
    ) { object in replica?.object == object ? replica : nil }
    do {
      let result = try await body(server, host)
      server.close()
      await server.waitUntilClosed()
      return result
    } catch {
      server.close()
      await server.waitUntilClosed()
      throw error
    }
  }

  /// What a host with `client` is told by one with `server`; `nil` when they understand each other.
  private func refusal(client: ClusterTLS?, server: ClusterTLS?) async throws -> MobulaError? {
    try await withServer(server) { server, _ in
      do throws(MobulaError) {
        let socket = try TransferSocket.connect(
          to: server.endpoint, peer: "The server", by: .now + .seconds(10)
        ) { _ in }
        try socket.secureAsClient(client, patience)
        _ = try socket.authenticateAsClient(token: token, hello: hello(.random()), patience)
        return nil
      } catch {
        return error
      }
    }
  }

  @Test(arguments: [1, 5_000_000]) func objectsArrive(size: Int) async throws {
    let tls = try certificates.tls()
    let geometry = try ChunkGeometry(objectSize: size, chunkSize: 1 << 20)
    let original = try MemoryReplica(object: .random(job: .commandLine), geometry: geometry, offset: 100, seed: 7)
    let copy = try MemoryReplica(object: original.object, geometry: geometry)
    let report = try await withServer(tls, serving: original) { server, host in
      let own = TransferPeer(host: .random(), bulk: .tcp(host: "127.0.0.1", port: 1))
      let exchange = ObjectExchange(into: copy, own: own, token: token, tls: tls, hello: hello(own.host)) { _, _ in
        throw MobulaError(.notFound, "There are no others.")
      }
      return try await exchange.run(from: [TransferPeer(host: host, bulk: server.endpoint)])
    }
    #expect(report.bytes == size)
    #expect(copy.bytes.elementsEqual(original.bytes))
  }

  @Test func peersOfOneClusterUnderstandEachOther() async throws {
    #expect(try await refusal(client: certificates.tls(), server: certificates.tls()) == nil)
    #expect(try await refusal(client: nil, server: nil) == nil)
  }

  @Test func aServerOfAnotherClusterIsRefused() async throws {
    let error = try await refusal(client: certificates.tls(), server: certificates.tls("other"))
    #expect(error?.code == .unauthenticated)
    #expect(error?.message.contains("was not made by this cluster's CA") == true)
  }

  @Test(arguments: 0..<5) func aClientOfAnotherClusterIsRefused(_: Int) async throws {
    let error = try await refusal(client: certificates.tls("mixed"), server: certificates.tls())
    #expect(error?.code == .unauthenticated)
    #expect(error?.message.contains("refused this side's certificate") == true)
  }

  @Test func expiredCertificatesAreRefused() async throws {
    let client = try await refusal(client: certificates.tls("expired"), server: certificates.tls())
    #expect(client?.code == .unauthenticated)
    #expect(client?.message.contains("has expired") == true)
    let server = try await refusal(client: certificates.tls(), server: certificates.tls("expired"))
    #expect(server?.code == .unauthenticated)
    #expect(server?.message.contains("has expired") == true)
  }

  @Test func aPlainPeerIsRefused() async throws {
    let client = try await refusal(client: nil, server: certificates.tls())
    #expect(client?.code == .mismatch)
    #expect(client?.message.contains("start with --tls") == true)
    let server = try await refusal(client: certificates.tls(), server: nil)
    #expect(server?.code == .mismatch)
    #expect(server?.message.contains("does not speak TLS") == true)
  }

  /// Both directions at once, from threads of their own, with bytes that cross record borders.
  @Test func bothDirectionsAtOnce() async throws {
    let (left, right) = try securePair()
    let size = 20_000_000
    func exchange(_ socket: TransferSocket, _ ended: @escaping @Sendable (Bool) -> Void) {
      detachThread(named: "sender") {
        var sent = 0
        var step = 1
        while sent < size {
          let count = min(step, size - sent)
          try? socket.send((sent..<sent + count).map { UInt8(truncatingIfNeeded: $0 &* 31) }, more: step % 2 == 0)
          sent += count
          step = step * 3 % 70_001 + 1
        }
        try? socket.send([0])
      }
      detachThread(named: "receiver") {
        var isRight = true
        var received = 0
        var step = 5
        while received < size, isRight {
          let count = min(step, size - received)
          var bytes = [UInt8](repeating: 0, count: count)
          do {
            try bytes.withUnsafeMutableBytes { try socket.receive(into: $0, Patience(stall: .seconds(10))) }
          } catch { isRight = false }
          for index in 0..<count where bytes[index] != UInt8(truncatingIfNeeded: (received + index) &* 31) {
            isRight = false
          }
          received += count
          step = step * 7 % 300_007 + 1
        }
        ended(isRight)
      }
    }
    let results = await withCheckedContinuation { continuation in
      let box = SharedResults(continuation)
      exchange(left) { box.add($0) }
      exchange(right) { box.add($0) }
    }
    #expect(results == [true, true])
    left.close()
    right.close()
  }

  /// Two ends of a secure connection.
  private func securePair() throws -> (TransferSocket, TransferSocket) {
    try secureSockets(certificates.tls(), token: token)
  }
}

private final class SharedResults: Sendable {
  private let results = Mutex<[Bool]>([])
  private let continuation: CheckedContinuation<[Bool], Never>

  init(_ continuation: CheckedContinuation<[Bool], Never>) { self.continuation = continuation }

  func add(_ result: Bool) {
    let all = results.withLock { results in
      results.append(result)
      return results
    }
    if all.count == 2 { continuation.resume(returning: all) }
  }
}

/// A connection over loopback, with TLS or without.
func secureSockets(_ tls: ClusterTLS?, token: ClusterToken) throws -> (TransferSocket, TransferSocket) {
  let anywhere = Endpoint.tcp(host: "127.0.0.1", port: 0)
  let listener = try SocketAddress.resolve(anywhere, passive: true)[0].listen(at: anywhere)
  let endpoint = Endpoint.tcp(host: "127.0.0.1", port: try SocketAddress.port(of: listener.rawValue))
  let patience = Patience(stall: .seconds(10))
  let client = try TransferSocket.connect(to: endpoint, peer: "The server", by: .now + .seconds(10)) { _ in }
  let server = TransferSocket(OwnedDescriptor(owning: accept(listener.rawValue, nil, nil)), peer: "The client")
  guard let tls else { return (client, server) }
  detachThread(named: "handshake") { try? client.secureAsClient(tls, patience) }
  try server.secureAsServer(tls, token: token, hello: Hello(role: .host, name: "server"), patience)
  while client.secureStream == nil { usleep(1000) }
  return (client, server)
}
