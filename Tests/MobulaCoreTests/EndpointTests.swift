import MobulaCore
import Testing

struct EndpointTests {
  @Test(arguments: [
    ("10.0.0.1:7600", Endpoint.tcp(host: "10.0.0.1", port: 7600), "10.0.0.1:7600"),
    ("head.example:0", .tcp(host: "head.example", port: 0), "head.example:0"),
    ("[::1]:65535", .tcp(host: "::1", port: 65535), "[::1]:65535"),
    ("::1:7600", .tcp(host: "::1", port: 7600), "[::1]:7600"),
    ("unix:/run/host.sock", .unix(path: "/run/host.sock"), "unix:/run/host.sock"),
    ("/run/a:1", .unix(path: "/run/a:1"), "unix:/run/a:1"),
    ("unix:host.sock", .unix(path: "host.sock"), "unix:host.sock"),
  ])
  func textIsRead(text: String, endpoint: Endpoint, description: String) throws {
    #expect(Endpoint(text) == endpoint)
    #expect(endpoint.description == description)
    #expect(Endpoint(description) == endpoint)
    #expect(try CBORDecoder().decode(Endpoint.self, from: CBOREncoder().encode(endpoint)) == endpoint)
  }

  @Test(arguments: [
    "", "host", ":7600", "host:", "host:port", "host:65536", "host:-1", "host:+1", "a b:1", "a/b:1", "h\n:1", "[]:1",
    "unix:",
  ])
  func otherTextIsRefused(text: String) throws {
    #expect(Endpoint(text) == nil)
    let bytes = try CBOREncoder().encode(text)
    #expect(throws: DecodingError.self) { try CBORDecoder().decode(Endpoint.self, from: bytes) }
  }
}
