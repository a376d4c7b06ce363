import Testing

@testable import MobulaS3

/// The examples of AWS's own documentation and of its Signature Version 4 test suite.
@Suite struct SigV4SignerTests {
  /// "Signature Calculations for the Authorization Header", Amazon S3 API Reference.
  let s3 = SigV4Signer(
    credentials: S3Credentials(
      accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), region: "us-east-1")
  let s3Time = SigV4Timestamp(secondsSince1970: 1_369_353_600)

  /// aws-sig-v4-test-suite.
  let suite = SigV4Signer(
    credentials: S3Credentials(accessKey: "AKIDEXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    region: "us-east-1", service: "service")
  let suiteTime = SigV4Timestamp(secondsSince1970: 1_440_938_160)

  @Test func timestamps() {
    #expect(s3Time.description == "20130524T000000Z")
    #expect(suiteTime.description == "20150830T123600Z")
    #expect(suiteTime.date == "20150830")
    #expect(SigV4Timestamp(secondsSince1970: 951_827_696).description == "20000229T123456Z")
  }

  @Test func getObjectWithRange() {
    let authorization = s3.authorization(
      method: "GET", path: "/test.txt", query: [],
      headers: [
        ("Host", "examplebucket.s3.amazonaws.com"), ("Range", "bytes=0-9"),
        ("x-amz-content-sha256", SigV4Signer.emptyPayload), ("x-amz-date", "20130524T000000Z"),
      ], payloadHash: SigV4Signer.emptyPayload, at: s3Time)
    #expect(
      authorization
        == "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        + "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        + "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
  }

  @Test func putObject() {
    let hash = SigV4Signer.payloadHash(Array("Welcome to Amazon S3.".utf8))
    #expect(hash == "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072")
    let authorization = s3.authorization(
      method: "PUT", path: "/" + percentEncoded("test$file.text", keepingSlashes: true), query: [],
      headers: [
        ("Host", "examplebucket.s3.amazonaws.com"), ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-date", "20130524T000000Z"), ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-content-sha256", hash),
      ], payloadHash: hash, at: s3Time)
    #expect(authorization.hasSuffix("98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"))
  }

  @Test(arguments: [
    ([("lifecycle", "")], "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ([("prefix", "J"), ("max-keys", "2")], "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
  ])
  func getBucket(query: [(String, String)], signature: String) {
    let authorization = s3.authorization(
      method: "GET", path: "/", query: query,
      headers: [
        ("Host", "examplebucket.s3.amazonaws.com"), ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", SigV4Signer.emptyPayload),
      ], payloadHash: SigV4Signer.emptyPayload, at: s3Time)
    #expect(authorization.hasSuffix("Signature=\(signature)"))
  }

  @Test(arguments: [
    ("GET", [], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    (
      "GET", [("Param2", "value2"), ("Param1", "value1")],
      "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    ),
    ("POST", [], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
  ])
  func testSuite(method: String, query: [(String, String)], signature: String) {
    let authorization = suite.authorization(
      method: method, path: "/", query: query,
      headers: [("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")],
      payloadHash: SigV4Signer.emptyPayload, at: suiteTime)
    #expect(authorization.hasSuffix("SignedHeaders=host;x-amz-date, Signature=\(signature)"))
  }

  @Test func headersAreTrimmedAndJoined() {
    let (request, signed) = suite.canonicalRequest(
      method: "GET", path: "/", query: [],
      headers: [("My-Header1", "  a   b   c "), ("Host", "h"), ("my-header1", "d")], payloadHash: "P")
    #expect(request == "GET\n/\n\nhost:h\nmy-header1:a b c,d\n\nhost;my-header1\nP")
    #expect(signed == "host;my-header1")
  }

  @Test func uriEncoding() {
    #expect(percentEncoded("a/b c+d~e", keepingSlashes: true) == "a/b%20c%2Bd~e")
    #expect(percentEncoded("a/b=&%") == "a%2Fb%3D%26%25")
    #expect(percentEncoded("ü-模型") == "%C3%BC-%E6%A8%A1%E5%9E%8B")
    #expect(SigV4Signer.canonicalQuery([("b", "2"), ("a", "x y"), ("a", "1")]) == "a=1&a=x%20y&b=2")
  }

  @Test func everySignedRequestCarriesTheSessionToken() {
    let credentials = S3Credentials(accessKey: "AK", secretKey: "SK", sessionToken: "the token")
    let signed = S3Request(method: .get, bucket: "b", key: "k k").signed(
      with: credentials, configuration: S3Configuration(endpoint: S3Endpoint(host: "h", port: 9)), at: s3Time)
    let headers = signed.headers
    #expect(signed.url == "http://h:9/b/k%20k")
    #expect(headers.first { $0.0 == "x-amz-security-token" }?.1 == "the token")
    #expect(
      headers.first { $0.0 == "authorization" }?.1.contains(
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,") == true)
  }
}
