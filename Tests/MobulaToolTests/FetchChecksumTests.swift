import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaS3
import Testing

/// What a cluster reads from S3 in parts is compared with the checksum that S3 keeps of all of it.
@Suite struct FetchChecksumTests {
  private let url = "s3://models/m/model.bin"
  private static let size = 24_000_001
  private static let bytes = SyntheticModel(size: size, seed: 5).bytes(in: 0..<size)
  /// Bytes of the parts of the upload, not a multiple of a chunk's.
  private static let partSize = 5_345_678

  private func checksum(_ algorithm: S3ChecksumAlgorithm, _ bytes: some Collection<UInt8>) -> [UInt8] {
    Array(bytes).withUnsafeBytes { bytes in
      func bigEndian(_ number: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: number.bigEndian) { Array($0) }
      }
      return switch algorithm {
      case .crc32: bigEndian(crc32(bytes))
      case .crc32c: bigEndian(crc32c(bytes))
      default: bigEndian(crc64NVME(bytes))
      }
    }
  }

  private struct Case: CustomTestStringConvertible, Sendable {
    var algorithm: S3ChecksumAlgorithm
    var hosts: Int
    var inParts = false
    var testDescription: String { "\(algorithm)\(inParts ? " of parts" : ""), \(hosts) hosts" }
  }

  private func version(_ one: Case, isWrong: Bool) -> ObjectServer.Version {
    let starts = stride(from: 0, to: Self.size, by: Self.partSize)
    let parts = starts.map { Self.bytes[$0..<min(Self.size, $0 + Self.partSize)] }
    var value =
      one.inParts
      ? checksum(one.algorithm, parts.flatMap { checksum(one.algorithm, $0) }) : checksum(one.algorithm, Self.bytes)
    if isWrong { value[1] ^= 0x10 }
    let text = Data(value).base64EncodedString() + (one.inParts ? "-\(parts.count)" : "")
    return ObjectServer.Version(
      bytes: Self.bytes, etag: "\"e1\"",
      headers: [
        "x-amz-checksum-\(one.algorithm.rawValue)": text,
        "x-amz-checksum-type": one.inParts ? "COMPOSITE" : "FULL_OBJECT",
      ], parts: one.inParts ? parts.map(\.count) : [])
  }

  private func objects(_ cluster: TestCluster, host: Int) async throws -> Double {
    let shown = try await cluster.mobula("store", "--json", host: host)
    let statistics = try JSONDecoder().decode(JSONValue.self, from: Data(shown.output.utf8))
    if case .number(let value)? = statistics["objects"] { return value }
    return -1
  }

  @Test(
    .timeLimit(.minutes(2)),
    arguments: [
      Case(algorithm: .crc64nvme, hosts: 1), Case(algorithm: .crc32, hosts: 2), Case(algorithm: .crc32c, hosts: 2),
      Case(algorithm: .crc64nvme, hosts: 2), Case(algorithm: .crc32c, hosts: 2, inParts: true),
    ])
  private func whatS3SaysIsCompared(one: Case) async throws {
    let server = try ObjectServer()
    defer { server.stop() }
    let wrong = version(one, isWrong: true)
    server.put("/models/m/model.bin", wrong)
    // Limited, so that hosts are at it at the same time.
    let limit = ["--receive-limit", "10MB/s"]
    try await withCluster(others: one.hosts - 1, limit, joining: limit, environment: server.environment) { cluster in
      let failed = try await fetchEverywhere(one, cluster)
      let right = version(one, isWrong: false)
      let header = "x-amz-checksum-\(one.algorithm.rawValue)"
      for (host, fetched) in failed.enumerated() {
        #expect(fetched.status == .status(1), "\(fetched)")
        #expect(
          fetched.errors.contains(
            "The bytes of \(url) at http://127.0.0.1:\(server.port) have the \(one.algorithm.rawValue) checksum \(right.headers[header]!), but S3 says \(wrong.headers[header]!)"
          ), "\(fetched)")
        #expect(try await objects(cluster, host: host) == 0)
      }
      // Neither the object nor a name is left.
      #expect(!(try await cluster.mobula("ls").output.contains("model.bin")))
      let got = try await cluster.mobula("get", url, "-o", cluster.folder.path + "/copy")
      #expect(got.status == .status(1) && got.errors.contains(url), "\(got)")

      server.put("/models/m/model.bin", right)
      let fetched = try await fetchEverywhere(one, cluster)
      for (host, fetched) in fetched.enumerated() {
        #expect(
          fetched.output.contains("verified: the bytes have S3's checksum (\(one.algorithm.rawValue))"), "\(fetched)")
        let copy = cluster.folder.path + "/copy\(host)"
        #expect(try await cluster.mobula("get", url, "-o", copy, host: host).status.isSuccess)
        #expect(try Data(contentsOf: URL(filePath: copy)) == Data(Self.bytes))
      }
      // Who asks late gets all from the other.
      if one.hosts == 2 { #expect(fetched.contains { $0.output.contains("from host") }) }
    }
  }

  private func fetchEverywhere(_ one: Case, _ cluster: TestCluster) async throws -> [Finished] {
    try await withThrowingTaskGroup(of: (Int, Finished).self) { group in
      for host in 0..<one.hosts {
        group.addTask { (host, try await cluster.mobula("fetch", url, "--explain", host: host)) }
      }
      return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }.sorted { $0.key < $1.key }.map(\.value)
    }
  }

  /// Who asks S3 for nothing, and takes the bytes from hosts that are still reading them, does not get them either.
  @Test(.timeLimit(.minutes(2))) func whoTakesItFromReadersHearsOfIt() async throws {
    let server = try ObjectServer()
    defer { server.stop() }
    server.put("/models/m/model.bin", version(Case(algorithm: .crc64nvme, hosts: 1), isWrong: true))
    let limit = ["--receive-limit", "6MB/s"]
    try await withCluster(others: 1, limit, environment: server.environment) { cluster in
      async let fetching = cluster.mobula("fetch", url)
      while !(try await cluster.mobula("ls", host: 1).output.contains("model.bin")) {
        try await Task.sleep(for: .milliseconds(20))
      }
      let got = try await cluster.mobula("get", url, "-o", cluster.folder.path + "/copy", host: 1)
      let fetched = try await fetching
      for one in [got, fetched] {
        #expect(one.status == .status(1) && one.errors.contains("have the crc64nvme checksum"), "\(one)")
      }
      for host in 0..<2 { #expect(try await objects(cluster, host: host) == 0) }
    }
  }

  /// Of parts of different sizes, and by SHA-256, nothing is known; that is said, and no more.
  @Test(.timeLimit(.minutes(1)))
  func whatCannotBeComparedIsNot() async throws {
    let server = try ObjectServer()
    defer { server.stop() }
    var version = version(Case(algorithm: .crc32c, hosts: 1, inParts: true), isWrong: true)
    version.parts[1] += 1
    version.parts[2] -= 1
    server.put("/models/uneven", version)
    version.headers = ["x-amz-checksum-sha256": Data(count: 32).base64EncodedString()]
    server.put("/models/hashed", version)
    version.headers = [:]
    server.put("/models/plain", version)
    try await withCluster(environment: server.environment) { cluster in
      for (key, why) in [
        ("uneven", "unknown or different sizes"), ("hashed", "one pass over all bytes"), ("plain", "S3 keeps none"),
      ] {
        let fetched = try await cluster.mobula("fetch", "s3://models/\(key)", "--explain")
        #expect(fetched.status.isSuccess && fetched.output.contains(why), "\(fetched)")
        #expect(!fetched.output.contains("verified: the bytes"))
      }
    }
  }
}
