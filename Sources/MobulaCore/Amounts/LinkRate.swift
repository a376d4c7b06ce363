/// A rate of bits or bytes: `tc`'s notation, as in `840mbit` or `1.2gbit`, or `100MB/s`.
public struct LinkRate: Hashable, Comparable, Sendable, LosslessStringConvertible {
  /// Bits a second.
  public var bitsPerSecond: Int

  private static let range = 1e3...1e15

  /// So many bits a second.
  public init(bitsPerSecond: Int) { self.bitsPerSecond = bitsPerSecond }

  /// Reads a number followed by `bit`, `kbit`, `mbit` or `gbit` (units by 1000), or a `ByteCount` with its unit
  /// followed by `/s`; case does not matter. `nil` for anything else, and for less than 1 kbit or more than 1 Pbit.
  public init?(_ description: String) {
    guard description.utf8.allSatisfy({ 0x21...0x7E ~= $0 }) else { return nil }
    let text = description.lowercased()
    let (amount, unit) = leadingNumber(text)
    guard let amount else { return nil }
    var bits: Double
    switch unit {
    case "bit": bits = amount
    case "kbit": bits = amount * 1e3
    case "mbit": bits = amount * 1e6
    case "gbit": bits = amount * 1e9
    case let unit where unit.hasSuffix("b/s"):
      guard let bytes = ByteCount(String(text.prefix { $0 != "/" })) else { return nil }
      bits = Double(bytes.bytes) * 8
    default: return nil
    }
    bits.round()
    guard Self.range.contains(bits) else { return nil }
    bitsPerSecond = Int(bits)
  }

  public var description: String {
    for (unit, name) in [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1000, "kbit")]
    where bitsPerSecond % unit == 0 {
      return "\(bitsPerSecond / unit)\(name)"
    }
    return "\(bitsPerSecond)bit"
  }

  /// Bytes a second.
  public var bytesPerSecond: Double { Double(bitsPerSecond) / 8 }

  /// How long so many bytes take.
  public func time(for bytes: Int) -> Duration {
    let nanoseconds = (Double(bytes) / bytesPerSecond * 1e9).rounded()
    return .nanoseconds(Int64(exactly: nanoseconds) ?? .max)
  }

  public static func < (a: Self, b: Self) -> Bool { a.bitsPerSecond < b.bitsPerSecond }
}

extension LinkRate: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    bitsPerSecond = try container.decode(Int.self)
    guard Self.range.contains(Double(bitsPerSecond)) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "A rate of \(bitsPerSecond) bits a second is none from 1 kbit to 1 Pbit")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(bitsPerSecond)
  }
}
