import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaS3

@Suite struct S3ProxyTests {
  private func proxy(_ endpoint: String, _ environment: [String: String]) throws -> String? {
    try S3Proxy.of(S3Endpoint(endpoint), environment).map { "\($0) \($0.credentials ?? "-")" }
  }

  @Test(
    arguments: [
      ("http://s3", ["HTTP_PROXY": "http://p:3128"], "http://p:3128 -"),
      ("http://s3", ["http_proxy": "p:1", "HTTP_PROXY": "q:2"], "http://p:1 -"),
      ("http://s3", ["HTTP_PROXY": "http://p"], "http://p:80 -"), ("http://s3", ["HTTPS_PROXY": "http://p:3128"], nil),
      ("https://s3", ["HTTPS_PROXY": "http://u:a%40b@p:3128/"], "http://p:3128 u:a@b"),
      ("https://s3", ["https_proxy": "http://[::1]:3128"], "http://[::1]:3128 -"), ("https://s3", [:], nil),
      ("https://s3", ["HTTPS_PROXY": ""], nil),
    ] as [(String, [String: String], String?)])
  func variables(endpoint: String, environment: [String: String], expected: String?) throws {
    #expect(try proxy(endpoint, environment) == expected)
  }

  @Test(arguments: [
    ("*", true), ("s3.lab.example", true), ("example", true), (".example", true), ("*.example", true),
    ("other, lab.example", true), ("S3.LAB.EXAMPLE", true), ("s3.lab.example:80", true), ("s3.lab.example:81", false),
    ("3.lab.example", false), ("10.0.0.0/8", false), ("", false), ("other", false),
  ])
  func exceptions(list: String, isExcepted: Bool) throws {
    let environment = ["HTTP_PROXY": "http://p:1", "NO_PROXY": list]
    #expect(try (proxy("http://s3.lab.example", environment) == nil) == isExcepted)
  }

  @Test func exceptionsOfAddresses() throws {
    let environment = ["http_proxy": "http://p:1", "no_proxy": "10.1.0.0/16,127.0.0.1,::1"]
    for (endpoint, isExcepted) in [
      ("http://10.1.2.3:9", true), ("http://10.2.2.3:9", false), ("http://127.0.0.1:8333", true),
      ("http://[::1]:1", true),
    ] {
      #expect(try (proxy(endpoint, environment) == nil) == isExcepted, "\(endpoint)")
    }
  }

  @Test(arguments: ["https://p:1", "socks5://p:1", "http://p:0", "http://a b", "http://"])
  func whatIsNoProxyIsRefused(text: String) {
    let error = #expect(throws: MobulaError.self) { try proxy("http://s3", ["HTTP_PROXY": text]) }
    #expect(error?.code == .invalidArgument && error?.message.contains("HTTP_PROXY") == true)
  }

  /// What can't be reached is the proxy, and not the endpoint.
  @Test func oneThatIsNotThereIsNamed() async throws {
    let silent = try SilentPort()
    for endpoint in [S3Endpoint(host: "s3.invalid", port: 80), try S3Endpoint("https://s3.invalid")] {
      var configuration = S3Configuration(endpoint: endpoint)
      configuration.proxy = S3Proxy(host: "127.0.0.1", port: silent.port, credentials: "u:hush")
      configuration.retry = S3RetryPolicy(maximumAttempts: 1)
      let client = S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
      let error = await #expect(throws: S3Error.self) { try await client.head(bucket: "b", key: "k") }
      let message = error?.mobulaError.message ?? ""
      #expect(message.contains("by the proxy http://127.0.0.1:\(silent.port): Connection refused"), "\(message)")
      #expect(!message.contains("hush"))
    }
  }

  /// A proxy gets the whole URL and its own credentials; nobody has to know the endpoint's name.
  @Test func requestsGoThroughIt() async throws {
    let server = try FaultyServer(replying: { request in
      var headers = ["ETag": "\"e\""]
      headers["x-amz-checksum-crc32c"] = request.header("x-amz-checksum-crc32c")
      return .init(bytes: answer("200 OK", headers, Array("abc".utf8)))
    })
    defer { server.stop() }
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "s3.invalid", port: 80))
    configuration.proxy = S3Proxy(host: "127.0.0.1", port: server.port, credentials: "u:p")
    let client = S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
    #expect(try await client.bytes(bucket: "b", key: "k é", upTo: 10) == Array("abc".utf8))
    #expect(try await client.put(bucket: "b", key: "k", bytes: [1]) == "\"e\"")
    let heads = server.requests
    #expect(heads.count == 2)
    #expect(heads[0].hasPrefix("GET http://s3.invalid/b/k%20%C3%A9 HTTP/1.1"), "\(heads[0])")
    #expect(heads[1].hasPrefix("PUT http://s3.invalid/b/k HTTP/1.1"), "\(heads[1])")
    for head in heads {
      #expect(head.lowercased().contains("host: s3.invalid\r\n"), "\(head)")
      #expect(head.lowercased().contains("proxy-authorization: basic dtpw"), "\(head)")
    }
  }
}
