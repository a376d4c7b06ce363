/// A rate of bits or bytes: `tc`'s notation, as in `840mbit` or `1.2gbit`, or `100MB/s`.
public struct LinkRate: Hashable, Comparable, Sendable, LosslessStringConvertible {
  public var bitsPerSecond: Int

  public init(bitsPerSecond: Int) { self.bitsPerSecond = bitsPerSecond }

  /// Reads a number followed by `bit`, `kbit`, `mbit` or `gbit` (units by 1000), or a `ByteCount` with its unit
  /// followed by `/s`; case does not matter. `nil` for anything else, and for less than 1 kbit or more than 1 Pbit.
  public init?(_ description: String) {
    let text = description.lowercased()
    let digits = text.prefix { $0.isASCII && $0.isNumber || $0 == "." }
    guard let amount = Double(digits) else { return nil }
    var bits: Double
    switch text.dropFirst(digits.count) {
    case "bit": bits = amount
    case "kbit": bits = amount * 1e3
    case "mbit": bits = amount * 1e6
    case "gbit": bits = amount * 1e9
    case let unit where unit.hasSuffix("b/s"):
      guard let bytes = ByteCount(String(text.dropLast(2))) else { return nil }
      bits = Double(bytes.bytes) * 8
    default: return nil
    }
    bits.round()
    guard (1e3...1e15).contains(bits) else { return nil }
    bitsPerSecond = Int(bits)
  }

  public var description: String {
    for (unit, name) in [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1000, "kbit")]
    where bitsPerSecond % unit == 0 {
      return "\(bitsPerSecond / unit)\(name)"
    }
    return "\(bitsPerSecond)bit"
  }

  public var bytesPerSecond: Double { Double(bitsPerSecond) / 8 }

  /// How long so many bytes take.
  public func time(for bytes: Int) -> Duration {
    .nanoseconds(Int64((Double(bytes) / bytesPerSecond * 1e9).rounded()))
  }

  public static func < (a: Self, b: Self) -> Bool { a.bitsPerSecond < b.bitsPerSecond }
}

extension LinkRate: Codable {
  public init(from decoder: any Decoder) throws {
    bitsPerSecond = try decoder.singleValueContainer().decode(Int.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(bitsPerSecond)
  }
}
