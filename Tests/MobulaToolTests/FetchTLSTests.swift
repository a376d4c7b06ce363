import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaS3
import MobulaWire
import Testing

/// `mobula put` and `mobula fetch` with a real S3 server that speaks TLS, with a certificate of its own.
@Suite(.enabled(if: SeaweedServer.isInstalled(), "skipped: SeaweedFS is not installed (make environment)"))
struct FetchTLSTests {
  @Test(.timeLimit(.minutes(2))) func throughTLS() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let now = Int(time(nil))
    let certificates = CertificateFolder(folder.path + "/s3")
    let authority = try CertificateFolder(folder.path + "/ca").createAuthority(
      cluster: "s3", validity: now - 3600..<now + 3600)
    try certificates.createCertificate(
      of: authority, name: "s3", hosts: ["127.0.0.1"], validity: now - 3600..<now + 3600)
    let s3 = try await SeaweedServer.start(tls: certificates)
    do {
      try await putAndFetch(s3, trusting: certificates.authority)
    } catch {
      await s3.stop()
      throw error
    }
    await s3.stop()
  }

  private func putAndFetch(_ s3: SeaweedServer, trusting authority: String) async throws {
    let client = s3.client()
    try await client.createBucket("models")
    await client.shutdown()
    let environment = [
      "AWS_ENDPOINT_URL": s3.endpoint.description, "AWS_REGION": "us-east-1", "AWS_CA_BUNDLE": authority,
    ].merging(s3.credentials.environment) { $1 }
    // In parts.
    let model = SyntheticModel(size: 70_000_001, seed: 3)
    try await withCluster(environment: environment) { cluster in
      let file = cluster.folder.path + "/model.bin"
      try Data(model.bytes(in: 0..<model.size)).write(to: URL(filePath: file))
      let put = try await cluster.mobula("put", file, "s3://models/", environment: environment)
      #expect(put.status.isSuccess && put.output == "70 MB in s3://models/model.bin\n", "\(put)")
      let fetched = try await cluster.mobula("fetch", "s3://models/model.bin", "--explain")
      #expect(fetched.output.contains("verified: the bytes have S3's checksum (crc32c)"), "\(fetched)")
      let copy = cluster.folder.path + "/copy"
      #expect(try await cluster.mobula("get", "s3://models/model.bin", "-o", copy).status.isSuccess)
      let isSame = try Data(contentsOf: URL(filePath: copy)) == Data(contentsOf: URL(filePath: file))
      #expect(isSame)
      var distrustful = environment
      distrustful["AWS_CA_BUNDLE"] = ""
      let refused = try await cluster.mobula("put", file, "s3://models/", environment: distrustful)
      #expect(refused.status == .status(1) && refused.errors.contains("AWS_CA_BUNDLE"), "\(refused)")
    }
  }
}
