import FoundationEssentials
import MobulaCore
import Testing

@testable import MobulaS3

/// VAULT_CACERT against a real OpenBao with certificates of its own.
@Suite(.enabled(if: TestServer.isInstalled("bao"), "skipped: OpenBao is not installed (make environment)"))
struct VaultTLSTests {
  @Test func certificatesOfOnesOwn() async throws {
    let folder = try makeTemporaryDirectory("tls")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let server = try await TestServer.start("bao", ready: "/") { port in
      [
        "server", "-dev", "-dev-tls", "-dev-tls-cert-dir=\(folder)", "-dev-root-token-id=root",
        "-dev-listen-address=127.0.0.1:\(port)", "-dev-no-store-token",
      ]
    }
    let environment = [
      "MOBULA_VAULT_ADDR": "https://127.0.0.1:\(server.port)", "MOBULA_VAULT_AUTH": "token", "VAULT_TOKEN": "root",
      "MOBULA_VAULT_AWS_ROLE": "reader",
    ]
    let roots = try FileManager.default.contentsOfDirectory(atPath: folder).first { $0.hasSuffix("ca.pem") }
    let trusted = environment.merging(["VAULT_CACERT": "\(folder)/\(roots ?? "none")"]) { $1 }
    await expectMobulaError(.notFound, "refuses to read aws/sts/reader (status 404") {
      _ = try await S3CredentialsChain(environment: trusted).credentials()
    }
    await expectMobulaError(.unavailable, "its certificate is not trusted here") {
      _ = try await S3CredentialsChain(environment: environment).credentials()
    }
    let missing = environment.merging(["VAULT_CACERT": "\(folder)/none"]) { $1 }
    await expectMobulaError(.invalidArgument, "has no certificates that can be read") {
      _ = try await S3CredentialsChain(environment: missing).credentials()
    }
    await server.stop()
  }
}
