/// Where a service listens: `HOST:PORT` or the path of a Unix socket.
public enum Endpoint: Hashable, Sendable, Codable, LosslessStringConvertible {
  case tcp(host: String, port: Int)
  case unix(path: String)

  /// Reads `10.0.0.1:7600`, `head.example:7600`, `[::1]:7600`, `unix:/run/host.sock`
  /// or an absolute path; `nil` for anything else.
  public init?(_ description: String) {
    if description.hasPrefix("unix:") {
      guard description != "unix:" else { return nil }
      self = .unix(path: String(description.dropFirst(5)))
    } else if description.hasPrefix("/") {
      self = .unix(path: description)
    } else {
      guard let colon = description.lastIndex(of: ":") else { return nil }
      var host = String(description[..<colon])
      if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
      guard let port = Int(description[description.index(after: colon)...]), 0...65535 ~= port, !host.isEmpty else {
        return nil
      }
      self = .tcp(host: host, port: port)
    }
  }

  public var description: String {
    switch self {
    case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    case .unix(let path): "unix:\(path)"
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard let endpoint = Endpoint(text) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "\"\(text.prefix(80))\" is no HOST:PORT or socket path")
    }
    self = endpoint
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
