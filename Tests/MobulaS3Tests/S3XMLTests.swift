import MobulaCore
import Testing

@testable import MobulaS3

@Suite struct S3XMLTests {
  func error(_ status: Int, _ body: String, key: String? = "k") -> S3Error {
    .answer(
      S3Error.Head(status: status, requestID: "R"), body: Array(body.utf8), endpoint: S3Endpoint(host: "h", port: 1),
      bucket: "b", key: key)
  }

  @Test func errorsAreRead() {
    let error = error(
      404,
      """
      <?xml version="1.0" encoding="UTF-8"?>
      <Error><Code>NoSuchBucket</Code><Message>The &lt;bucket&gt;</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>
      """)
    #expect(error.code == "NoSuchBucket")
    #expect(error.message == "The <bucket>")
    #expect(error.requestID == "4442587FB7D0A2F9")
    #expect(error.mobulaError.code == .notFound)
    #expect(
      error.mobulaError.message == "The bucket b does not exist at http://h:1: create it, or check the name.")
  }

  @Test(arguments: [
    (404, "<Error><Code>NoSuchKey</Code></Error>", MobulaError.Code.notFound, "no object s3://b/k"),
    (403, "<Error><Code>SignatureDoesNotMatch</Code></Error>", .denied, "correct them where they come from"),
    (403, "", .denied, "denies access to s3://b/k"),
    (400, "<Error><Code>ExpiredToken</Code></Error>", .denied, "temporary credentials"),
    (412, "", .mismatch, "changed while it was downloaded"),
    (301, "<Error><Code>PermanentRedirect</Code><Region>eu-west-1</Region></Error>", .invalidArgument, "eu-west-1"),
    (503, "<Error><Code>SlowDown</Code><Message>Reduce</Message></Error>", .unavailable, "SlowDown"),
    (400, "no xml at all", .inputOutput, "status 400, request R"),
  ])
  func errorsSayWhatToDo(status: Int, body: String, code: MobulaError.Code, part: String) {
    let error = error(status, body).mobulaError
    #expect(error.code == code)
    #expect(error.message.contains(part), "\(error)")
    #expect(error.message.hasSuffix("."))
  }

  @Test func whatIsWorthAnotherAttempt() {
    for status in [408, 429, 500, 502, 503, 504] { #expect(error(status, "").isRetryable) }
    for status in [400, 403, 404, 412, 501] { #expect(!error(status, "").isRetryable) }
    #expect(error(400, "<Error><Code>RequestTimeout</Code></Error>").isRetryable)
  }

  @Test func listings() throws {
    let page = try #require(
      try S3ListingPage(
        Array(
          """
          <?xml version="1.0"?>
          <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>true</IsTruncated>
            <Contents><Key> a &amp; b+ü &#x6A21;</Key><ETag>&quot;e1&quot;</ETag><Size>5</Size></Contents>
            <Contents><Key>c/</Key><ETag>"e2"</ETag><Size>0</Size><Owner><ID>x</ID></Owner></Contents>
            <NextContinuationToken>1/ue==</NextContinuationToken>
          </ListBucketResult>
          """.utf8)))
    #expect(page.objects.map(\.key) == [" a & b+ü 模", "c/"])
    #expect(page.objects.map(\.size) == [5, 0])
    #expect(page.objects[0].etag == "\"e1\"")
    #expect(page.continuation == "1/ue==")
  }

  @Test(arguments: [
    "", "<a", "<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>",
    "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "<Error/>",
  ])
  func listingsThatAreNone(text: String) throws {
    #expect(try S3ListingPage(Array(text.utf8)) == nil)
  }

  @Test func aSizeThatIsNone() throws {
    let text = "<ListBucketResult><Contents><Key>k</Key><Size>-1</Size></Contents></ListBucketResult>"
    let page = try #require(try S3ListingPage(Array(text.utf8)))
    #expect(page.objects == [] && page.impossible?.key == "k" && page.impossible?.size == "-1")
  }

  /// What XML can't have is asked for in another form; what is no text at all is refused.
  @Test func keysThatXMLCannotHave() throws {
    func page(_ key: String, _ encoding: String = "<EncodingType>url</EncodingType>") throws -> S3ListingPage? {
      let text = "\(encoding)<Contents><Key>\(key)</Key><Size>1</Size></Contents>"
      return try S3ListingPage(Array("<ListBucketResult>\(text)</ListBucketResult>".utf8))
    }
    #expect(try page("a&#x1;b", "") == nil)
    #expect(try page("a\u{FFFD}b", "")?.isDoubtful == true && page("a%b+", "")?.objects.first?.key == "a%b+")
    #expect(
      try page("a%01b/+%2B%25%e2%80%ae%C3%A9e%CC%81")?.objects.map(\.key) == ["a\u{1}b/ +%\u{202E}\u{E9}e\u{301}"])
    let refused = #expect(throws: MobulaError.self) { try page("a%FF%00b") }
    #expect(refused?.code == .invalidArgument && refused?.message.contains(#"The key a\xff\u{0}b in S3"#) == true)
  }

  @Test func anEmptyListing() throws {
    #expect(try S3ListingPage(Array("<ListBucketResult/>".utf8))?.objects == [])
  }

  @Test func deepNestingIsRefused() {
    let deep = String(repeating: "<a>", count: 100) + String(repeating: "</a>", count: 100)
    #expect(XMLTree.parse(Array(deep.utf8)) == nil)
    #expect(XMLTree.parse(Array("<a><b>t</b></a>".utf8))?["b"] == "t")
  }

  @Test func whatDocumentsMayHave() throws {
    let text = """
      \u{FEFF}<?xml version="1.0" encoding="UTF-8"?>
      <!-- a comment - of <its> own -->
      <p:a xmlns:p='urn:x' b = "1>2" ><k>&lt;&amp;&gt;&quot;&apos;&#233;&#x1F469;</k ><k> x\r\ny\r</k>
      <c><![CDATA[<not> & a tag]]]></c><d/><e f="g"/><?what ever?></p:a>
      <!-- the end -->

      """
    let tree = try #require(XMLTree.parse(Array(text.utf8)))
    #expect(tree.name == "a" && tree.children.map(\.name) == ["k", "k", "c", "d", "e"])
    #expect(tree.children.map(\.text) == ["<&>\"'\u{E9}\u{1F469}", " x\ny\n", "<not> & a tag]", "", ""])
  }

  @Test(arguments: [
    "<a>", "</a>", "<a></b>", "<a/><b/>", "<a/>x", "x<a/>", "<a><b></a></b>", "<a b/>", "<a b=1/>", "<a b=\"<\"/>",
    "<a b='1'c='2'/>", "< a/>", "<1/>", "<a>&nope;</a>", "<a>&</a>", "<a>&#0;</a>", "<a>&#xD800;</a>",
    "<a>&#99999999;</a>",
    "<a>&#x;</a>", "<a>&#+1;</a>", "<a>\u{1}</a>", "<a>\u{FFFE}</a>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
    "<a><!-- </a>", "<![CDATA[x]]>", "<a><![CDATA[x</a>", "<", "<a", "<a ", "<a b", "<a b=", "<a b='", "&lt;", "<?x",
  ]) func whatIsNoDocument(text: String) { #expect(XMLTree.parse(Array(text.utf8)) == nil) }

  /// Whatever a server answers with, it is a document or none.
  @Test func brokenDocumentsAreReadOrRefused() {
    var generator = SeededGenerator(seed: 9)
    let whole = Array("<?xml?><a x='y'><b>t&amp;&#65;</b><c><![CDATA[d]]></c><!-- e --></a>".utf8)
    var read = 0
    for _ in 0..<20_000 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let index = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: bytes[index] = whole.randomElement(using: &generator)!
        case 1: bytes.remove(at: index)
        default: bytes[index] = UInt8.random(in: 0...255, using: &generator)
        }
      }
      if XMLTree.parse(bytes) != nil { read += 1 }
    }
    #expect(0 < read && read < 20_000)
  }
}
