import FoundationEssentials
import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// Checksums that S3 keeps: how they are read, combined and compared.
@Suite struct S3ChecksumTests {
  private let bytes = pattern(400_000)

  private func value(_ algorithm: S3ChecksumAlgorithm, _ bytes: some Sequence<UInt8>) -> [UInt8] {
    var running = S3RunningChecksum(algorithm)
    Array(bytes).withUnsafeBytes { running.update($0) }
    return running.bytes
  }

  private func crc(_ algorithm: S3ChecksumAlgorithm, _ bytes: some Sequence<UInt8>) -> UInt64 {
    value(algorithm, bytes).reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// The check values of the catalogue of parametrised CRC algorithms, and of FIPS 180-4 ("abc").
  @Test func checkValues() {
    let digits = Array("123456789".utf8)
    #expect(hexadecimal(value(.crc32, digits)) == "cbf43926")
    #expect(hexadecimal(value(.crc32c, digits)) == "e3069283")
    #expect(hexadecimal(value(.crc64nvme, digits)) == "ae8b14860a799888")
    #expect(
      hexadecimal(value(.sha256, "abc".utf8)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  }

  @Test(arguments: [S3ChecksumAlgorithm.crc32, .crc32c, .crc64nvme]) func combined(algorithm: S3ChecksumAlgorithm) {
    let digits = Array("123456789".utf8)
    for cut in 0...9 {
      #expect(
        algorithm.combine(crc(algorithm, digits[..<cut]), crc(algorithm, digits[cut...]), length: 9 - cut)
          == crc(algorithm, digits), "cut at \(cut)")
    }
    for cut in [1, 65_536, 399_999] {
      #expect(
        algorithm.combine(crc(algorithm, bytes[..<cut]), crc(algorithm, bytes[cut...]), length: bytes.count - cut)
          == crc(algorithm, bytes))
    }
  }

  @Test func hashesCannotBeCombined() {
    #expect(!S3ChecksumAlgorithm.sha256.canBeCombined)
    #expect(S3ChecksumAlgorithm.sha256.combine(1, 2, length: 3) == nil)
  }

  @Test func readFromHeaders() {
    func read(_ headers: [String: String]) -> S3Checksum? { S3Checksum { headers[$0] } }
    #expect(read(["x-amz-checksum-crc32c": "sOO8/Q=="])?.description == "crc32c b0e3bcfd")
    #expect(read(["x-amz-checksum-crc32c": "sOO8/Q==-3"])?.parts == 3)
    // The quickest of several.
    #expect(
      read(["x-amz-checksum-crc32": "y/Q5Jg==", "x-amz-checksum-crc64nvme": "rosUhgp5mIg="])?.algorithm == .crc64nvme)
    for text in ["", "sOO8", "sOO8/Q==-", "sOO8/Q==-0", "sOO8/Q==-10001", "sOO8/Q==-1-2", "!!!!!!=="] {
      #expect(read(["x-amz-checksum-crc32c": text]) == nil, "\(text)")
    }
    #expect(read(["x-amz-checksum-crc32c": "sOO8/Q==", "x-amz-checksum-type": "COMPOSITE"]) == nil)
    #expect(read(["x-amz-checksum-sha1": "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="]) == nil)
  }

  @Test func partLayouts() {
    #expect(S3PartLayout(size: 100, leastPart: 30).count == 4)
    #expect(S3PartLayout(size: 100, leastPart: 30).range(of: 4) == 90..<100)
    #expect(S3PartLayout(size: 90, leastPart: 30).range(of: 3) == 60..<90)
    let large = S3PartLayout(size: 5 << 40, leastPart: 16 << 20)
    #expect(large.partSize == 525 << 20 && large.count <= 10_000)
    #expect(S3PartLayout(size: 1, leastPart: 0).partSize == 1)
  }

  /// The ledger takes stretches in any order, and again.
  @Test(arguments: [S3ChecksumAlgorithm.crc32, .crc32c, .crc64nvme], [nil, 100_000, 90_001])
  func aLedger(algorithm: S3ChecksumAlgorithm, partSize: Int?) {
    var expected = value(algorithm, bytes)
    if let partSize {
      let starts = stride(from: 0, to: bytes.count, by: partSize)
      expected = value(
        algorithm, starts.flatMap { value(algorithm, bytes[$0..<min(bytes.count, $0 + partSize)]) })
    }
    var ledger = S3ChecksumLedger(
      expected: S3Checksum(algorithm: algorithm, bytes: expected, parts: partSize == nil ? nil : 5),
      size: bytes.count, partSize: partSize)
    let ends = Set(stride(from: 65_536, to: bytes.count, by: 65_536)).union(
      partSize.map { Array(stride(from: $0, to: bytes.count, by: $0)) } ?? [])
    let cuts = [0] + ends.sorted() + [bytes.count]
    let stretches = zip(cuts, cuts.dropFirst()).map { start, end in
      S3ChecksumLedger.Stretch(start: start, length: end - start, crc: crc(algorithm, bytes[start..<end]))
    }
    func record(_ stretch: S3ChecksumLedger.Stretch) -> Bool { ledger.record([stretch]) }
    for stretch in stretches.dropFirst().reversed() { #expect(record(stretch) == false) }
    #expect(record(stretches[1]) == false)
    #expect(ledger.isRight == nil)
    var wrong = stretches[0]
    wrong.crc ^= 1
    #expect(record(wrong))
    #expect(ledger.isRight == false)
    #expect(record(stretches[0]))
    #expect(ledger.isRight == true)
  }

  /// Chunks of any size, behind a header, in any order: of whole objects and of parts.
  @Test(arguments: [S3ChecksumAlgorithm.crc32, .crc32c, .crc64nvme], [0, 64, 65_536, 70_000])
  func chunksAsTheyCome(algorithm: S3ChecksumAlgorithm, headerSize: Int) throws {
    let object = pattern(headerSize) + bytes
    let geometry = try ChunkGeometry(objectSize: object.count, chunkSize: 65_536)
    func record(_ checks: S3DownloadChecks, damage: Int? = nil) {
      for chunk in (0..<geometry.count).reversed() {
        #expect(checks.checksum == nil || geometry.range(of: chunk).upperBound <= headerSize)
        var piece = Array(object[geometry.range(of: chunk)])
        if chunk == damage { piece[piece.count - 1] ^= 1 }
        piece.withUnsafeBytes { checks.record($0, at: geometry.range(of: chunk).lowerBound, crc32c: crc32c($0)) }
      }
    }
    let expected = ExpectedChecksum(
      source: "a test", algorithm: algorithm.rawValue, bytes: value(algorithm, bytes), headerSize: headerSize)
    let checks = try #require(S3DownloadChecks(expected, size: object.count))
    record(checks)
    #expect(checks.checksum == expected.bytes && checks.expected.bytes == expected.bytes)
    let damaged = try #require(S3DownloadChecks(expected, size: object.count))
    record(damaged, damage: geometry.count - 1)
    #expect(damaged.checksum != expected.bytes)

    let info = info(algorithm, parts: 5, partSize: 90_001)
    let ledger = S3ChecksumLedger(expected: try #require(info.checksum), size: bytes.count, partSize: 90_001)
    let ofParts = S3DownloadChecks(ledger, headerSize: headerSize)
    record(ofParts)
    #expect(ofParts.checksum == info.checksum?.bytes)

    for wrong in ["sha256", "md5"] {
      var other = expected
      other.algorithm = wrong
      #expect(S3DownloadChecks(other, size: object.count) == nil)
    }
    var long = expected
    long.bytes.append(0)
    #expect(S3DownloadChecks(long, size: object.count) == nil)
    long = expected
    long.headerSize = object.count
    #expect(S3DownloadChecks(long, size: object.count) == nil)
  }

  private func client(_ port: Int) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port))
    configuration.retry = S3RetryPolicy(
      maximumAttempts: 5, firstPause: .milliseconds(1), maximumPause: .milliseconds(2))
    return S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
  }

  private func info(_ algorithm: S3ChecksumAlgorithm, parts: Int? = nil, partSize: Int = 1) -> S3ObjectInfo {
    var expected = value(algorithm, bytes)
    if parts != nil {
      let starts = stride(from: 0, to: bytes.count, by: partSize)
      expected = value(algorithm, starts.flatMap { value(algorithm, bytes[$0..<min(bytes.count, $0 + partSize)]) })
    }
    return S3ObjectInfo(
      size: bytes.count, etag: "\"v1\"", checksum: S3Checksum(algorithm: algorithm, bytes: expected, parts: parts))
  }

  /// Serves ranges of `bytes`, of which `damage` may change something, and the parts of an upload.
  private func server(
    partSizes: [Int] = [], damage: @escaping @Sendable (Int, Range<Int>, inout [UInt8]) -> Void = { _, _, _ in }
  ) throws -> FaultyServer {
    let bytes = bytes
    return try FaultyServer { number, head in
      if head.hasPrefix("HEAD") {
        let line = head.split(separator: " ")[1]
        guard let part = line.split(separator: "partNumber=").last.flatMap({ Int($0) }), part <= partSizes.count else {
          return answer("400 Bad Request")
        }
        return answer(
          "206 Partial Content",
          ["Content-Length": "\(partSizes[part - 1])", "x-amz-mp-parts-count": "\(partSizes.count)", "ETag": "\"v1\""])
      }
      let range = S3FaultTests.range(in: head)
      var damaged = bytes
      damage(number, range, &damaged)
      return S3FaultTests.part(damaged, range)
    }
  }

  @Test(arguments: [S3ChecksumAlgorithm.crc32, .crc32c, .crc64nvme], [0, 64, 65_536, 70_000])
  func rangesAreComparedTogether(algorithm: S3ChecksumAlgorithm, headerSize: Int) async throws {
    let server = try server()
    defer { server.stop() }
    let sink = try MemorySink(size: headerSize + bytes.count)
    let result = try await client(server.port).download(
      bucket: "b", key: "k", info: info(algorithm), into: sink, header: pattern(headerSize), concurrency: 3,
      partSize: ByteCount(65_536))
    #expect(result == .verified(try #require(info(algorithm).checksum)))
    #expect(sink.bytes == pattern(headerSize) + bytes && sink.isCompleteAndRight)
  }

  /// A byte that changed on the way is noticed, and the object does not become whole.
  @Test(arguments: [S3ChecksumAlgorithm.crc32, .crc32c, .crc64nvme])
  func damageInRangesIsAnError(algorithm: S3ChecksumAlgorithm) async throws {
    let server = try server { _, _, bytes in bytes[200_000] ^= 4 }
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    await #expect {
      try await client(server.port).download(
        bucket: "b", key: "k", info: info(algorithm), into: sink, concurrency: 3, partSize: ByteCount(65_536))
    } throws: { error in
      (error as? S3Error)?.code == S3Error.wrongChecksum && (error as? S3Error)?.mobulaError.code == .corrupted
    }
    #expect(sink.checksums.count == sink.geometry.count - 1)
    #expect(sink.free.count == 1)
  }

  /// What came by one GET becomes visible only when it is right, and comes again when it is not.
  @Test func damageInASingleRangeIsFetchedAgain() async throws {
    let server = try server { number, _, bytes in if number == 0 { bytes[9] ^= 1 } }
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    let progress = Counter()
    let result = try await client(server.port).download(
      bucket: "b", key: "k", info: info(.crc32c), into: sink, progress: { progress.add($0) })
    #expect(result == .verified(try #require(info(.crc32c).checksum)))
    #expect(sink.bytes == bytes && sink.isCompleteAndRight && progress.value == bytes.count)
    #expect(server.requests.count == 2)
  }

  @Test func damageThatStaysIsAnError() async throws {
    let server = try server { _, _, bytes in bytes[9] ^= 1 }
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    await #expect {
      try await client(server.port).download(bucket: "b", key: "k", info: info(.crc64nvme), into: sink)
    } throws: { ($0 as? S3Error)?.mobulaError.code == .corrupted }
    #expect(server.requests.count == 2 && sink.checksums.isEmpty)
  }

  /// A chunk that another source has: the rest is fetched, and not compared.
  @Test func withOtherSourcesNothingIsCompared() async throws {
    let server = try server()
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    #expect(sink.claim(2))
    let result = try await client(server.port).download(bucket: "b", key: "k", info: info(.crc32c), into: sink)
    #expect(result == .notVerified(.otherSources))
    #expect(Set(sink.checksums.keys) == Set(0..<sink.geometry.count).subtracting([2]))
  }

  @Test(arguments: [S3ChecksumAlgorithm.crc32, .crc32c, .crc64nvme])
  func checksumsOfParts(algorithm: S3ChecksumAlgorithm) async throws {
    let server = try server(partSizes: [90_001, 90_001, 90_001, 90_001, 39_996])
    defer { server.stop() }
    let sink = try MemorySink(size: 64 + bytes.count)
    let info = info(algorithm, parts: 5, partSize: 90_001)
    let result = try await client(server.port).download(
      bucket: "b", key: "k", info: info, into: sink, header: pattern(64), concurrency: 2, partSize: ByteCount(65_536))
    #expect(result == .verified(try #require(info.checksum)))
    #expect(sink.isCompleteAndRight)
  }

  /// Sizes that only look equal: it is said that nothing was compared, rather than that something is wrong.
  @Test func partsOfOtherSizes() async throws {
    let server = try server(partSizes: [90_001, 90_000, 90_002, 90_001, 39_996])
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    let info = S3ObjectInfo(
      size: bytes.count, etag: "\"v1\"",
      checksum: S3Checksum(algorithm: .crc32c, bytes: [1, 2, 3, 4], parts: 5))
    let result = try await client(server.port).download(bucket: "b", key: "k", info: info, into: sink)
    #expect(result == .notVerified(.unknownParts))
    #expect(sink.bytes == bytes && sink.isCompleteAndRight)
  }

  @Test func partsOfUnknownSizes() async throws {
    let server = try server()
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    let info = info(.crc32c, parts: 5, partSize: 90_001)
    let result = try await client(server.port).download(bucket: "b", key: "k", info: info, into: sink)
    #expect(result == .notVerified(.unknownParts) && sink.isCompleteAndRight)
  }

  @Test(arguments: S3ChecksumAlgorithm.allCases) func aWholeBodyIsCompared(algorithm: S3ChecksumAlgorithm) async throws
  {
    let bytes = bytes
    let sum = Data(value(algorithm, bytes)).base64EncodedString()
    let server = try FaultyServer { number, _ in
      var body = bytes
      if number == 0 { body[77] ^= 1 }
      return answer("200 OK", [algorithm.header: sum], body)
    }
    defer { server.stop() }
    let client = client(server.port)
    let body = try await client.get(bucket: "b", key: "k")
    await #expect {
      try await body.forEachPiece { _ in }
    } throws: { ($0 as? S3Error)?.code == S3Error.wrongChecksum }
    #expect(try await client.bytes(bucket: "b", key: "k", upTo: bytes.count) == bytes)
    #expect(server.requests.allSatisfy { $0.contains("x-amz-checksum-mode: ENABLED") })
  }
}
