internal import FoundationEssentials
internal import MobulaCore
public import MobulaWire

/// One value of a message, as it is to be on the wire.
public struct GoldenMessage: Sendable {
  public let method: String
  /// `request` or `response`; `element` of a stream.
  public let side: String
  public let type: String
  public let bytes: [UInt8]

  init(_ method: String, _ side: String, _ value: some Codable) {
    self.method = method
    self.side = side
    type = "\(Swift.type(of: value))"
    bytes = (try? CBOREncoder().encode(value)) ?? []
  }

  /// Both sides of a call.
  public static func of<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, _ response: Response
  ) -> [GoldenMessage] {
    [GoldenMessage(method.name, "request", request), GoldenMessage(method.name, "response", response)]
  }

  public static func of(_ name: String, _ side: String, _ value: some Codable) -> GoldenMessage {
    GoldenMessage(name, side, value)
  }
}

/// `docs/Wire.md`, which says what every message is on the wire.
public struct WireDocument: Sendable {
  /// The bytes that it has, as hexadecimal digits, by method and side: `head.resolve request`.
  public let golden: [String: String]
  /// All methods that it has.
  public let methods: Set<String>

  /// - Parameter file: of a test, three folders below the package's root.
  public init(besides file: String = #filePath) throws {
    var root = URL(filePath: file)
    for _ in 0..<3 { root.deleteLastPathComponent() }
    let text = String(decoding: try Data(contentsOf: root.appending(path: "docs/Wire.md")), as: UTF8.self)
    var (golden, methods, current) = ([String: String](), Set<String>(), "")
    for line in text.split(separator: "\n") {
      if line.hasPrefix("### `"), let end = line.dropFirst(5).firstIndex(of: "`") {
        current = String(line.dropFirst(5)[..<end])
        methods.insert(current)
      }
      // A line of a block: the side, then the digits.
      let words = line.split(separator: " ")
      if words.count == 2, ["request", "response", "element", "bytes"].contains(words[0]) {
        golden["\(current) \(words[0])"] = String(words[1])
      }
    }
    (self.golden, self.methods) = (golden, methods)
  }

  /// What is wrong with a message; `nil` when it is as the document says.
  public func problem(of message: GoldenMessage) -> String? {
    let key = "\(message.method) \(message.side)"
    let digits = hexadecimal(message.bytes)
    guard let known = golden[key] else { return "docs/Wire.md has no \(key): \(digits)" }
    return known == digits ? nil : "\(key) is \(digits), and docs/Wire.md says \(known)"
  }

  /// Writes messages to the file that `WIRE_GOLDEN` names, a line each, for `Scripts/wire-document.py`.
  public static func export(_ messages: [GoldenMessage]) throws {
    guard let path = currentEnvironment()["WIRE_GOLDEN"] else { return }
    let before = (try? Data(contentsOf: URL(filePath: path))) ?? Data()
    let lines = messages.map { "\($0.method) \($0.side) \($0.type) \(hexadecimal($0.bytes))\n" }.joined()
    try (before + Data(lines.utf8)).write(to: URL(filePath: path))
  }
}
