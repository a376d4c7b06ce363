internal import AsyncHTTPClient
internal import Glibc
internal import MobulaCore

/// The HTTP proxy that requests to an endpoint go through, as curl and the AWS SDKs read it from the environment:
/// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in capitals or small letters, which come first.
public struct S3Proxy: Hashable, Sendable, CustomStringConvertible {
  /// A name or an address; IPv6 without brackets.
  public let host: String
  public let port: Int
  /// `USER:PASSWORD`, as the variable has it, decoded.
  let credentials: String?

  /// Without what is secret.
  public var description: String { "http://\(host.contains(":") ? "[\(host)]" : host):\(port)" }

  /// For requests with TLS, which it passes on unread.
  var tunnel: HTTPClient.Configuration.Proxy {
    let words = credentials?.split(separator: ":", maxSplits: 1).map(String.init) ?? []
    return .server(
      host: host, port: port,
      authorization: words.isEmpty ? nil : .basic(username: words[0], password: words.count > 1 ? words[1] : ""))
  }

  init(host: String, port: Int, credentials: String? = nil) {
    self.host = host
    self.port = port
    self.credentials = credentials
  }

  /// - Returns: `nil` when there is none, or the endpoint is one of those that are asked directly.
  /// - Throws: `MobulaError` (`invalidArgument`) for a variable that names no proxy.
  static func of(_ endpoint: S3Endpoint, _ environment: [String: String]) throws(MobulaError) -> S3Proxy? {
    func first(_ names: String...) -> (name: String, text: String)? {
      names.lazy.compactMap { name in environment[name].flatMap { $0.isEmpty ? nil : (name, $0) } }.first
    }
    let variable =
      endpoint.scheme == .https ? first("https_proxy", "HTTPS_PROXY") : first("http_proxy", "HTTP_PROXY")
    guard let variable else { return nil }
    if let exceptions = first("no_proxy", "NO_PROXY"), excepts(endpoint, exceptions.text) { return nil }
    guard let proxy = parse(variable.text) else {
      throw MobulaError(
        .invalidArgument,
        "\(variable.name) names no proxy that can be used: write it as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT."
      )
    }
    return proxy
  }

  private static func parse(_ text: String) -> S3Proxy? {
    let parts = text.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 1 || parts[0].lowercased() == "http", var authority = parts.last else { return nil }
    var credentials: String?
    if let at = authority.lastIndex(of: "@") {
      guard let decoded = try? percentDecoded(String(authority[..<at])) else { return nil }
      credentials = decoded
      authority = authority[authority.index(after: at)...]
    }
    guard let endpoint = try? S3Endpoint("http://" + authority) else { return nil }
    return S3Proxy(host: endpoint.host, port: endpoint.port, credentials: credentials)
  }

  /// Whether a list of names, domains and addresses, with or without ports and ranges, has the endpoint.
  private static func excepts(_ endpoint: S3Endpoint, _ list: String) -> Bool {
    let host = endpoint.host.lowercased()
    return list.split(whereSeparator: { $0 == "," || $0.isWhitespace }).contains { entry in
      var name = entry.lowercased()
      if name == "*" { return true }
      if let range = AddressRange(name) { return range.contains(host) }
      if let (bare, port) = split(name) {
        guard port == endpoint.port else { return false }
        name = bare
      }
      if name.hasPrefix("*.") { name.removeFirst() }
      if name.hasPrefix(".") { return host.hasSuffix(name) || host == name.dropFirst() }
      return host == name || host.hasSuffix("." + name)
    }
  }

  /// `HOST:PORT`; `nil` for a name or an address alone.
  private static func split(_ text: String) -> (host: String, port: Int)? {
    if text.hasPrefix("[") || text.count(where: { $0 == ":" }) == 1, case .tcp(let host, let port)? = Endpoint(text) {
      return (host, port)
    }
    return nil
  }

  /// `10.0.0.0/8`.
  private struct AddressRange {
    let bits: UInt32
    let mask: UInt32

    init?(_ text: String) {
      let parts = text.split(separator: "/", omittingEmptySubsequences: false)
      guard parts.count == 2, let length = Int(parts[1]), 0...32 ~= length, let bits = Self.bits(String(parts[0]))
      else {
        return nil
      }
      mask = length == 0 ? 0 : UInt32.max << UInt32(32 - length)
      self.bits = bits & mask
    }

    func contains(_ host: String) -> Bool { Self.bits(host).map { $0 & mask == bits } ?? false }

    private static func bits(_ text: String) -> UInt32? {
      var address = in_addr()
      return inet_pton(AF_INET, text, &address) == 1 ? UInt32(bigEndian: address.s_addr) : nil
    }
  }
}
