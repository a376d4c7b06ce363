public import MobulaCore

/// Where an S3 service answers: scheme, host and port.
public struct S3Endpoint: Hashable, Sendable, CustomStringConvertible {
  public enum Scheme: String, Sendable { case http, https }

  public let scheme: Scheme
  /// A name or an address; IPv6 without brackets.
  public let host: String
  public let port: Int

  /// `port` is 80 for `http` and 443 for `https` unless given.
  public init(scheme: Scheme = .http, host: String, port: Int? = nil) {
    self.scheme = scheme
    self.host = host
    self.port = port ?? (scheme == .http ? 80 : 443)
  }

  /// Reads `http://127.0.0.1:8333`, `https://s3.example.com`, or `HOST:PORT` for http.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) for anything else.
  public init(_ text: String) throws(MobulaError) {
    let parts = text.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
    let scheme = parts.count == 2 ? Scheme(rawValue: parts[0].lowercased()) : .http
    var authority = parts.last!
    if authority.hasSuffix("/") { authority.removeLast() }
    guard let scheme, let (host, port) = Self.split(authority) else {
      throw MobulaError(
        .invalidArgument,
        "\"\(text)\" is no S3 endpoint: give it as http://HOST:PORT or https://HOST, without a bucket.")
    }
    self.init(scheme: scheme, host: host, port: port)
  }

  private static func split(_ authority: Substring) -> (host: String, port: Int?)? {
    let allowed: (Character) -> Bool = { $0.isASCII && ($0.isLetter || $0.isNumber || "-._:[]".contains($0)) }
    guard !authority.isEmpty, authority.allSatisfy(allowed) else { return nil }
    let bare = authority.hasPrefix("[") ? authority.hasSuffix("]") : !authority.contains(":")
    if bare { return (authority.filter { $0 != "[" && $0 != "]" }, nil) }
    guard case .tcp(let host, let port)? = Endpoint(String(authority)), port > 0 else { return nil }
    return (host, port)
  }

  /// `HOST` or `HOST:PORT`, as the Host header has it: without the scheme's usual port.
  public var authority: String {
    let name = host.contains(":") ? "[\(host)]" : host
    return port == (scheme == .http ? 80 : 443) ? name : "\(name):\(port)"
  }

  public var description: String { "\(scheme.rawValue)://\(authority)" }
}
