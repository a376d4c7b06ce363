internal import Glibc

/// What something is called, as its bytes in UTF-8.
///
/// Swift's `String` takes texts for equal that differ in their Unicode form; to S3, to file systems and to the cluster
/// `café` with one accented letter and `café` with a letter and an accent are two names. A `Name` is compared, hashed
/// and ordered by its bytes. It is encoded as the `String` that it is, as a key of a dictionary too.
///
/// `description` is for people, in messages, tables and logs: what would act on a terminal is escaped. `text` is exact.
public struct Name: Sendable {
  /// The name exactly.
  public let text: String

  /// The name with the bytes of `text` in UTF-8.
  public init(_ text: String) { self.text = text }

  /// The name with the bytes of `text` in UTF-8.
  public init(_ text: Substring) { self.text = String(text) }

  /// Its bytes.
  public var utf8: String.UTF8View { text.utf8 }

  /// Whether it has no bytes.
  public var isEmpty: Bool { text.utf8.isEmpty }

  /// Whether the name's bytes end with those of `suffix`.
  public func hasSuffix(_ suffix: some StringProtocol) -> Bool {
    text.utf8.suffix(suffix.utf8.count).elementsEqual(suffix.utf8)
  }

  /// Whether the name's bytes begin with those of `prefix`.
  public func hasPrefix(_ prefix: some StringProtocol) -> Bool { text.utf8.starts(with: prefix.utf8) }
}

extension Name {
  /// The most bytes that an object's name has: enough for any URL of S3 with a version.
  public static let longest = 8192

  /// - Throws: `MobulaError` (`invalidArgument`) for what no object can be called.
  public func checkForObject() throws(MobulaError) {
    guard !isEmpty else {
      throw MobulaError(.invalidArgument, "An object can't have an empty name: give it one of at least one character.")
    }
    guard utf8.count <= Self.longest else {
      throw MobulaError(
        .invalidArgument,
        "A name has at most \(Self.longest) bytes, and this one \(utf8.count): \"\(String(text.prefix(40)).printable)…\"; give a shorter one."
      )
    }
  }
}

extension Name: Hashable, Comparable {
  public static func == (a: Self, b: Self) -> Bool { a.text.utf8.order(b.text.utf8) == 0 }

  public static func < (a: Self, b: Self) -> Bool { a.text.utf8.order(b.text.utf8) < 0 }

  public func hash(into hasher: inout Hasher) {
    var text = text
    text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    // No byte of UTF-8 is 0xFF: so two names behind each other are not two others.
    hasher.combine(0xFF as UInt8)
  }
}

extension Name: ExpressibleByStringLiteral {
  public init(stringLiteral text: String) { self.text = text }

  /// The name with a text behind it.
  public static func + (a: Self, b: String) -> Self { Self(a.text + b) }
}

extension Name: CustomStringConvertible, CustomDebugStringConvertible {
  public var description: String { text.printable }

  public var debugDescription: String { "\"\(description)\"" }
}

extension Name: Codable, CodingKeyRepresentable {
  /// A name as the key of a dictionary.
  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }

    init(stringValue: String) { self.stringValue = stringValue }

    init?(intValue: Int) { nil }
  }

  public init(from decoder: any Decoder) throws { text = try decoder.singleValueContainer().decode(String.self) }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(text)
  }

  /// The name as the key of a dictionary.
  public var codingKey: any CodingKey { Key(stringValue: text) }

  /// The name that is the key of a dictionary.
  public init?(codingKey: some CodingKey) { text = codingKey.stringValue }
}

extension String {
  /// Whether two texts have the same bytes, which `==` does not ask.
  public func isSame(as other: some StringProtocol) -> Bool { utf8.elementsEqual(other.utf8) }
}

extension String.UTF8View {
  /// Below, at or above 0 as these bytes come before, are, or come after the others.
  fileprivate func order(_ other: Self) -> Int {
    let fast = withContiguousStorageIfAvailable { here in
      other.withContiguousStorageIfAvailable { there -> Int in
        let shared = Swift.min(here.count, there.count)
        if shared > 0, let here = here.baseAddress, let there = there.baseAddress {
          let order = memcmp(here, there, shared)
          if order != 0 { return Int(order) }
        }
        return here.count - there.count
      }
    }
    if let order = fast ?? nil { return order }
    if elementsEqual(other) { return 0 }
    return lexicographicallyPrecedes(other) ? -1 : 1
  }
}
