import MobulaCore
import Testing

@testable import MobulaS3

/// Payloads in pieces, and signatures in the query: the examples of AWS's documentation.
@Suite struct SigV4StreamTests {
  let signer = SigV4Signer(
    credentials: S3Credentials(
      accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), region: "us-east-1")
  let time = SigV4Timestamp(secondsSince1970: 1_369_353_600)
  @Test func aProducerThatGivesTooLittle() async {
    let pieces = S3Pieces(size: 10, producer: { _ in [1] })
    await #expect {
      for try await _ in S3PieceSequence(pieces: pieces) {}
    } throws: { (($0 as? S3ProducerFailure)?.cause as? MobulaError)?.code == .invalidArgument }
    await #expect {
      try await pieces.readDigest(isSigned: true)
    } throws: { ($0 as? MobulaError)?.code == .invalidArgument }
  }

  /// As they are, with a checksum ahead of them; over plain http the signature is of their SHA-256, too ("Checking object
  /// integrity", Amazon S3 User Guide). The SHA-256 is an example of FIPS 180-2; another program computed the CRC32C.
  @Test func howUploadsAreSigned() async throws {
    func headers(_ scheme: S3Endpoint.Scheme, checksums: Bool = true) async throws -> [String: String] {
      let text = Array("abc".utf8)
      let pieces = S3Pieces(size: 3, producer: { Array(text[$0]) })
      let request = S3Request(method: .put, bucket: "b", key: "k", payload: .pieces(pieces))
      var configuration = S3Configuration(endpoint: S3Endpoint(scheme: scheme, host: "h"))
      configuration.uploadChecksums = checksums
      try await request.prepare(configuration)
      let signed = request.signed(with: signer.credentials, configuration: configuration, at: time)
      return Dictionary(signed.headers, uniquingKeysWith: { first, _ in first })
    }
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    // 0x364B3FB7
    let crc32c = "Nks/tw=="
    var sent = try await headers(.https)
    #expect(sent["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD" && sent["x-amz-checksum-crc32c"] == crc32c)
    sent = try await headers(.http)
    #expect(sent["x-amz-content-sha256"] == sha256 && sent["x-amz-checksum-crc32c"] == crc32c)
    #expect(sent["content-encoding"] == nil && sent["x-amz-trailer"] == nil)
    sent = try await headers(.http, checksums: false)
    #expect(sent["x-amz-content-sha256"] == sha256 && sent["x-amz-checksum-crc32c"] == nil)
    sent = try await headers(.https, checksums: false)
    #expect(sent["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD" && sent["x-amz-checksum-crc32c"] == nil)
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
