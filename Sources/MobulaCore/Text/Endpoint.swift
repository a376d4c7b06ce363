/// Where a service listens: `HOST:PORT` or the path of a Unix socket.
public enum Endpoint: Hashable, Sendable, Codable, LosslessStringConvertible {
  /// A name or a numeric address, and a port.
  case tcp(host: String, port: Int)
  /// The path of a socket on this machine.
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
      if host.hasPrefix("["), host.hasSuffix("]") {
        host = String(host.dropFirst().dropLast())
      }
      let digits = description[description.index(after: colon)...].utf8
      guard 1...5 ~= digits.count, digits.allSatisfy({ 0x30...0x39 ~= $0 }), let port = Int(String(digits)!),
        port <= 65535, Self.isHost(host)
      else { return nil }
      self = .tcp(host: host, port: port)
    }
  }

  /// Whether it can be a name or an address: the letters, digits and marks of such, in at most 255 bytes.
  public static func isHost(_ text: String) -> Bool {
    1...255 ~= text.utf8.count
      && text.utf8.allSatisfy { byte in
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x80...: true
        default: ".-_:%".utf8.contains(byte)
        }
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
