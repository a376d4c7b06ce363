import MobulaCore
import NIOCore
import Testing

@testable import MobulaS3

/// Payloads in signed chunks, and signatures in the query: the examples of AWS's documentation.
@Suite struct SigV4StreamTests {
  /// "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks (Chunked Upload)"
  /// and "…: Including Trailing Headers (Chunked Upload)", Amazon S3 API Reference.
  let signer = SigV4Signer(
    credentials: S3Credentials(
      accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), region: "us-east-1")
  let time = SigV4Timestamp(secondsSince1970: 1_369_353_600)
  let payload = [UInt8](repeating: UInt8(ascii: "a"), count: 66_560)

  private func seed(_ hash: String, _ headers: [(String, String)]) -> SigV4Signer.Signature {
    signer.signature(
      method: "PUT", path: "/examplebucket/chunkObject.txt", query: [],
      headers: headers + [
        ("host", "s3.amazonaws.com"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", hash),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"), ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
      ], payloadHash: hash, at: time)
  }

  private var trailing: SigV4Signer.Signature {
    seed(SigV4Signer.signedTrailer, [("x-amz-trailer", "x-amz-checksum-crc32c")])
  }

  @Test func chunks() {
    let seed = seed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", [("content-length", "66824")])
    #expect(seed.text == "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9")
    var chunks = seed.chunks
    let signatures = [0..<65_536, 65_536..<66_560, 0..<0].map { range in
      payload[range].withUnsafeBytes { chunks.sign(chunk: $0) }
    }
    #expect(
      signatures == [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
      ])
  }

  @Test func chunksWithAChecksumBehindThem() async throws {
    #expect(trailing.text == "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e")
    let payload = payload
    let pieces = S3Pieces(size: payload.count, producer: { Array(payload[$0]) }, checksum: S3SentChecksum())
    let framing = S3Framing.signed(trailing.chunks)
    var sent = ""
    for try await buffer in S3PieceSequence(pieces: pieces, framing: framing, pieceSize: 65_536) {
      sent += String(buffer: buffer)
    }
    let expected =
      "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n"
      + String(repeating: "a", count: 65_536) + "\r\n"
      + "400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n"
      + String(repeating: "a", count: 1024) + "\r\n"
      + "0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
      + "x-amz-checksum-crc32c:sOO8/Q==\r\n"
      + "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    #expect(sent == expected)
    #expect(framing.encodedLength(payload.count, pieceSize: 65_536) == expected.utf8.count)
    #expect(base64(try #require(pieces.checksum?.value)) == "sOO8/Q==")
  }

  @Test(arguments: [0, 1, 99, 100, 101, 250]) func lengthsAreKnownBefore(size: Int) async throws {
    for framing in [S3Framing.none, .unsigned, .signed(trailing.chunks)] {
      let pieces = S3Pieces(size: size, producer: { [UInt8](repeating: 7, count: $0.count) })
      var count = 0
      for try await buffer in S3PieceSequence(pieces: pieces, framing: framing, pieceSize: 100) {
        count += buffer.readableBytes
      }
      #expect(framing.encodedLength(size, pieceSize: 100) == count)
    }
  }

  @Test func aProducerThatGivesTooLittle() async {
    let pieces = S3Pieces(size: 10, producer: { _ in [1] })
    await #expect {
      for try await _ in S3PieceSequence(pieces: pieces, framing: .none) {}
    } throws: { (($0 as? S3ProducerFailure)?.cause as? MobulaError)?.code == .invalidArgument }
  }

  @Test func howUploadsAreFramed() {
    let pieces = S3Pieces(size: 10, producer: { _ in [] })
    let request = S3Request(method: .put, bucket: "b", key: "k", payload: .pieces(pieces))
    func hash(_ scheme: S3Endpoint.Scheme, checksums: Bool = true) -> String? {
      var configuration = S3Configuration(endpoint: S3Endpoint(scheme: scheme, host: "h"))
      configuration.uploadChecksums = checksums
      let signed = request.signed(with: signer.credentials, configuration: configuration, at: time)
      return signed.headers.first { $0.0 == "x-amz-content-sha256" }?.1
    }
    #expect(hash(.https) == "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    #expect(hash(.http) == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
    #expect(hash(.https, checksums: false) == "UNSIGNED-PAYLOAD")
  }

  /// "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", Amazon S3 API Reference.
  @Test func presigned() {
    let query = signer.presignedQuery(
      method: "GET", path: "/test.txt", query: [], headers: [("host", "examplebucket.s3.amazonaws.com")],
      expiry: 86_400, at: time)
    #expect(
      query == "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        + "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        + "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        + "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")
  }

  /// AWS's test suite for Signature Version 4, as in awslabs/aws-c-auth, tests/aws-signing-test-suite/v4.
  struct Vector: Sendable, CustomTestStringConvertible {
    var name: String
    var method = "GET"
    var path = "/"
    var query: [(String, String)] = []
    var headers: [(String, String)] = []
    var token: String?
    /// In the header, and in the query.
    var signatures: (String, String)
    var testDescription: String { name }
  }

  static let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
  static let vectors = [
    Vector(
      name: "get-unreserved", path: "/" + unreserved,
      signatures: (
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        "95968482db1b9e0fadef6efc1bd24689f77c77d9ef56919c96a28cc92e0d6005"
      )),
    Vector(
      name: "get-utf8", path: "/" + percentEncoded("ሴ"),
      signatures: (
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        "10eae3f14a260bd3911cc6d008d3c576d143b05b62f09782a7a4b37f52178e44"
      )),
    Vector(
      name: "get-vanilla-query-unreserved", query: [(unreserved, unreserved)],
      signatures: (
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        "8e76a88a7433637b12778d5592799b29ad21ecd6cf6325051c21d86f0acda2bf"
      )),
    Vector(
      name: "get-vanilla-utf8-query", query: [("ሴ", "bar")],
      signatures: (
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        "0bdd809b1519ac4f0c1dc3540e2cc46bd0c7f778eda408b2ebf3b913d21ff600"
      )),
    Vector(
      name: "get-vanilla-empty-query-key", query: [("Param1", "value1")],
      signatures: (
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        "49096700cbbaa5753443850f40df10f904fc2fdb544dc9512203cc77c471a9de"
      )),
    Vector(
      name: "get-header-value-trim", headers: [("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
      signatures: (
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        "e7bb0fd515e125e1aec2ecc4c0c17484fb06f6846b927c35e46005dd3df3acd4"
      )),
    Vector(
      name: "get-header-key-duplicate",
      headers: [("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")],
      signatures: (
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        "3349ee0b81b4b589da0ff28a395c3591e04de515651dd74f298fa992d1507a97"
      )),
    Vector(
      name: "get-header-value-order",
      headers: [
        ("My-Header1", "value4"), ("My-Header1", "value1"), ("My-Header1", "value3"), ("My-Header1", "value2"),
      ],
      signatures: (
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        "313720e71ca6202fdcfa9b20f88de01a4eb0638a83c833b1c184359a4eda864e"
      )),
    Vector(
      name: "post-header-key-sort", method: "POST", headers: [("My-Header1", "value1")],
      signatures: (
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        "c09d07e0d55871f10f2a6d350d994acf6825a3cae70673d7def55616e6119dd7"
      )),
    Vector(
      name: "post-header-value-case", method: "POST", headers: [("My-Header1", "VALUE1")],
      signatures: (
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        "0698bc9e4f7f9139065ba2909c0e99da257e8e2a42492a097bcd46d792391fed"
      )),
    Vector(
      name: "get-vanilla-with-session-token", token: "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267",
      signatures: (
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c"
      )),
    Vector(
      name: "get-space-unnormalized", path: "/" + percentEncoded("example space/", keepingSlashes: true),
      signatures: (
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        "7a1f416954786484c9824d93c1f26ef64acb9b1b6c9154d08c9f07d0e394abf6"
      )),
    Vector(
      name: "get-slashes-unnormalized", path: "//example//",
      signatures: (
        "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
        "822a5a9ba28072c5ab2bb4a6307d0c88276d40e49fec6b724c03fb4d4ba60fc2"
      )),
    Vector(
      name: "get-relative-unnormalized", path: "/example/..",
      signatures: (
        "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282",
        "cbcb213b928a077e43275df47b500f1dfaa864ab3f5a18f6b95f4ff0938167ee"
      )),
  ]

  @Test(arguments: vectors) func testSuite(vector: Vector) {
    let signer = SigV4Signer(
      credentials: S3Credentials(
        accessKey: "AKIDEXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", sessionToken: vector.token),
      region: "us-east-1", service: "service")
    let time = SigV4Timestamp(secondsSince1970: 1_440_938_160)
    var headers = [("Host", "example.amazonaws.com")] + vector.headers
    #expect(
      signer.presignedQuery(
        method: vector.method, path: vector.path, query: vector.query, headers: headers, expiry: 3600,
        payloadHash: SigV4Signer.emptyPayload, at: time
      ).hasSuffix("&X-Amz-Signature=\(vector.signatures.1)"))
    headers.append(("X-Amz-Date", time.description))
    if let token = vector.token { headers.append(("X-Amz-Security-Token", token)) }
    let signature = signer.signature(
      method: vector.method, path: vector.path, query: vector.query, headers: headers,
      payloadHash: SigV4Signer.emptyPayload, at: time)
    #expect(signature.text == vector.signatures.0)
  }
}
