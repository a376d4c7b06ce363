import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaWire
import Testing

@testable import MobulaS3

/// Over TLS the payload of an upload is not signed, and its checksum stands in a header: a real server takes it so, by one
/// PUT and in parts.
@Suite(.enabled(if: WithSeaweed.isInstalled, "skipped: SeaweedFS is not installed (make environment)"))
struct SeaweedTLSTests {
  @Test(.timeLimit(.minutes(2))) func uploads() async throws {
    let folder = try makeTemporaryDirectory("tls")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let now = Int(time(nil))
    let certificates = CertificateFolder(folder + "/s3")
    let authority = try CertificateFolder(folder + "/ca").createAuthority(
      cluster: "s3", validity: now - 3600..<now + 3600)
    try certificates.createCertificate(
      of: authority, name: "s3", hosts: ["127.0.0.1"], validity: now - 3600..<now + 3600)
    let server = try await SeaweedServer.start(tls: certificates)
    do {
      try await upload(to: server)
    } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  private func upload(to server: SeaweedServer) async throws {
    var configuration = server.configuration
    #expect(configuration.baseEndpoint.scheme == .https)
    configuration.multipartThreshold = ByteCount(5 * 1_048_576)
    configuration.uploadPartSize = ByteCount(5 * 1_048_576)
    let client = S3Client(configuration: configuration, credentials: server.credentials)
    try await client.createBucket("models")
    // One PUT of less than a chunk, of several, and three parts.
    for size in [1, 70_000, 3_000_001, 12_345_678] {
      let bytes = pattern(size)
      let etag = try await client.put(bucket: "models", key: "m\(size)", size: size) { Array(bytes[$0]) }
      let info = try await client.head(bucket: "models", key: "m\(size)")
      #expect(info.size == size && info.etag == etag && info.etag.hasSuffix("-3\"") == (size > 12_000_000))
      // Which came ahead of the bytes.
      let checksum = S3Checksum(
        algorithm: .crc32c, bytes: bigEndian(UInt64(bytes.withUnsafeBytes { crc32c($0) }), count: 4))
      #expect(info.checksum == checksum)
      let memory = try await client.downloadIntoMemory(
        bucket: "models", key: "m\(size)", partSize: ByteCount(1_000_000))
      #expect(memory.bytes.elementsEqual(bytes) && memory.verification == .verified(checksum))
    }
    try await client.put(bucket: "models", key: "whole", bytes: [1, 2, 3])
    #expect(try await client.bytes(bucket: "models", key: "whole", upTo: 3) == [1, 2, 3])

    // A server that nobody vouches for is not spoken to.
    configuration.trustedRoots = nil
    configuration.retry = S3RetryPolicy(maximumAttempts: 1)
    let distrustful = S3Client(configuration: configuration, credentials: server.credentials)
    await #expect {
      try await distrustful.put(bucket: "models", key: "x", bytes: [1])
    } throws: { error in
      let error = (error as? S3Error)?.mobulaError
      return error?.code == .unavailable && error?.message.contains("its certificate is not trusted here") == true
    }
    await distrustful.shutdown()
    await client.shutdown()
  }
}
