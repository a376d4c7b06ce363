import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaS3

/// Sizes that no object can have, wherever S3 names one.
@Suite struct S3SizeTests {
  static let absurd = [
    "9223372036854775807", "9223372036853727232", "4611686018427387904", "9223372036854775808",
    "18446744073709551615", "140737488355329", "-1", "+5", "1e9", "five", "",
  ]

  @Test(arguments: absurd) func isNone(text: String) { #expect(S3Size.parse(text) == nil) }

  @Test func ordinarySizes() {
    #expect(S3Size.parse("0") == 0)
    #expect(S3Size.parse("007") == 7)
    #expect(S3Size.parse("140737488355328") == 1 << 47)
  }

  @Test func theLargestObjectHasAGeometry() throws {
    let (layout, _) = ValueLayout.blob(size: S3Size.maximum)
    #expect(throws: MobulaError.self) { try ChunkGeometry(objectSize: layout.size) }
    let (fitting, _) = ValueLayout.blob(size: S3Size.maximum - 1024)
    let geometry = try ChunkGeometry(objectSize: fitting.size)
    #expect(geometry.count == ChunkGeometry.maximumCount)
  }

  @Test(arguments: absurd.prefix(6)) func aListingIsRefusedAtOnce(size: String) async throws {
    let server = try FaultyServer { _, _ in
      answer(
        "200 OK", [:],
        "<ListBucketResult><Contents><Key>k</Key><Size>\(size)</Size></Contents></ListBucketResult>".utf8)
    }
    defer { server.stop() }
    await S3FaultTests().expectError(.inputOutput, size) {
      _ = try await S3FaultTests().client(server.port).list(bucket: "b")
    }
    #expect(server.requests.count == 1, "asking again changes nothing")
  }

  @Test func aListingWhoseSumIsTooLargeIsRefused() async throws {
    let entry = "<Contents><Key>k</Key><Size>\(S3Size.maximum)</Size></Contents>"
    let entries = String(repeating: entry, count: 1000)
    let server = try FaultyServer { number, _ in
      answer(
        "200 OK", [:],
        "<ListBucketResult>\(entries)<IsTruncated>true</IsTruncated><NextContinuationToken>\(number)</NextContinuationToken></ListBucketResult>"
          .utf8)
    }
    defer { server.stop() }
    await S3FaultTests().expectError(.inputOutput, "more bytes than can be counted") {
      _ = try await S3FaultTests().client(server.port).list(bucket: "b")
    }
  }
}
