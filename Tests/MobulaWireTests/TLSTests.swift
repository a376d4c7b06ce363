import Glibc
import MobulaCore
import MobulaTestKit
import NIOSSL
import Testing

@testable import MobulaWire

struct TLSTests {
  private let certificates: TestCertificates
  private let fixture = Fixture()

  init() throws { certificates = try TestCertificates() }

  /// Calls a server, each side with its own TLS or none, and says what the client is told.
  private func call(
    client: ClusterTLS?, server: ClusterTLS?, at endpoint: Endpoint = .tcp(host: "127.0.0.1", port: 0),
    _ text: String = "hello"
  ) async throws -> String {
    let listening = try await RPCServer.bind(
      to: endpoint, token: fixture.token, hello: Fixture.server, router: fixture.router, tls: server)
    do {
      let connection = try await RPCConnection.connect(
        to: listening.endpoint, token: fixture.token, hello: Fixture.client, tls: client)
      let answer = try await connection.call(echo, text)
      await connection.close()
      await listening.close()
      return answer
    } catch {
      await listening.close()
      throw error
    }
  }

  private func refusal(client: ClusterTLS?, server: ClusterTLS?) async -> MobulaError? {
    do {
      _ = try await call(client: client, server: server)
      return nil
    } catch { return error as? MobulaError }
  }

  @Test func callsGoThrough() async throws {
    let tls = try certificates.tls()
    #expect(try await call(client: tls, server: tls) == "hello")
    let long = String(repeating: "0123456789", count: 500_000)
    #expect(try await call(client: tls, server: tls, long) == long)
  }

  /// Both sides say goodbye: one that waited for its own patience to end would take a second each time.
  @Test func closingWaitsForNothing() async throws {
    let tls = try certificates.tls()
    let start = ContinuousClock.now
    for _ in 0..<60 { _ = try await call(client: tls, server: tls) }
    #expect(ContinuousClock.now - start < .seconds(60))
  }

  @Test func unixSocketsStayPlain() async throws {
    let path = certificates.path + "/socket"
    #expect(try await call(client: nil, server: certificates.tls(), at: .unix(path: path)) == "hello")
    #expect(try await call(client: certificates.tls(), server: nil, at: .unix(path: path)) == "hello")
  }

  @Test func anotherTokenIsRefusedInsideOfTLS() async throws {
    let tls = try certificates.tls()
    let server = try await RPCServer.bind(
      to: fixture.endpoint, token: fixture.token, hello: Fixture.server, router: fixture.router, tls: tls)
    let error = await #expect(throws: MobulaError.self) {
      _ = try await RPCConnection.connect(to: server.endpoint, token: .random(), hello: Fixture.client, tls: tls)
    }
    #expect(error?.code == .unauthenticated)
    #expect(error?.message.contains("token") == true)
    await server.close()
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

  @Test func anExpiredClientIsTold() async throws {
    let error = try await refusal(client: certificates.tls("expired"), server: certificates.tls())
    #expect(error?.code == .unauthenticated)
    #expect(error?.message.contains("has expired") == true)
  }

  @Test func anExpiredServerIsRefused() async throws {
    let error = try await refusal(client: certificates.tls(), server: certificates.tls("expired"))
    #expect(error?.code == .unauthenticated)
    #expect(error?.message.contains("has expired") == true)
  }

  /// New connections use what is in the folder now; those that there are go on; and what can't be used changes nothing.
  @Test func certificatesAreReadAgainWhenTheyChange() async throws {
    try await withFolder { path in
      let folder = CertificateFolder(path)
      try certificates.folder("own").copy(to: folder)
      let tls = try ClusterTLS(folder)
      let (own, other) = (try certificates.tls(), try certificates.tls("other"))
      let server = try await RPCServer.bind(
        to: fixture.endpoint, token: fixture.token, hello: Fixture.server, router: fixture.router, tls: tls)
      func connect(_ tls: ClusterTLS) async throws -> RPCConnection {
        try await RPCConnection.connect(to: server.endpoint, token: fixture.token, hello: Fixture.client, tls: tls)
      }
      func isRefused(_ tls: ClusterTLS) async -> Bool {
        do {
          await (try await connect(tls)).close()
          return false
        } catch { return (error as? MobulaError)?.code == .unauthenticated }
      }
      let living = try await connect(own)
      #expect(await isRefused(other))
      // A key that is not the certificate's, a certificate that has expired, and one that is missing.
      try certificates.folder("other").copy(to: folder)
      try copy(certificates.folder("own").key, to: folder.key)
      #expect(await !isRefused(own))
      try certificates.folder("expired").copy(to: folder)
      #expect(await !isRefused(own))
      unlink(folder.certificate)
      #expect(await !isRefused(own))
      try certificates.folder("other").copy(to: folder)
      #expect(await isRefused(own))
      #expect(await !isRefused(other))
      #expect(try await living.call(echo, "still there") == "still there")
      await living.close()
      await server.close()
    }
  }

  private func copy(_ from: String, to path: String) throws {
    let text = try readSmallFile(from)
    unlink(path)
    let file = try #require(fopen(path, "w"))
    fputs(text, file)
    fclose(file)
  }

  @Test func aClientWithoutACertificateIsRefused() async throws {
    var bare = try certificates.tls()
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.certificateVerification = .noHostnameVerification
    configuration.trustRoots = .file(certificates.folder("own").authority)
    bare.client = try NIOSSLContext(configuration: configuration)
    let error = try await refusal(client: bare, server: certificates.tls())
    #expect(error?.code == .unauthenticated)
    #expect(error?.message.contains("refused this side's certificate") == true)
  }

  @Test func aPlainClientIsToldToUseTLS() async throws {
    let error = try await refusal(client: nil, server: certificates.tls())
    #expect(error?.code == .mismatch)
    #expect(error?.message.contains("start with --tls") == true)
  }

  @Test func aPlainServerIsNamed() async throws {
    let error = try await refusal(client: certificates.tls(), server: nil)
    #expect(error?.code == .mismatch)
    #expect(error?.message.contains("does not speak TLS") == true)
  }
}

struct ClusterTLSTests {
  private let certificates: TestCertificates

  init() throws { certificates = try TestCertificates() }

  @Test func anExpiredCertificateIsNamedBeforeAnythingStarts() throws {
    let error = #expect(throws: MobulaError.self) { try ClusterTLS(certificates.folder("expired")) }
    #expect(error?.code == .unauthenticated)
    #expect(error?.message.contains("expired at") == true)
  }

  @Test func missingAndForeignFilesAreNamed() throws {
    let missing = #expect(throws: MobulaError.self) { try ClusterTLS(certificates.folder("nowhere")) }
    #expect(missing?.code == .inputOutput)
    let folder = certificates.folder("copy")
    try certificates.folder("own").copy(to: folder)
    _ = try ClusterTLS(folder)
    try certificates.folder("other").copy(to: certificates.folder("key"))
    _ = rename(certificates.folder("key").key, folder.key)
    let foreign = #expect(throws: MobulaError.self) { try ClusterTLS(folder) }
    #expect(foreign?.code == .invalidArgument)
    _ = rename(folder.certificate, folder.key)
    #expect(throws: MobulaError.self) { try ClusterTLS(folder) }
  }
}
