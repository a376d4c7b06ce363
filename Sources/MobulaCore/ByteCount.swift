/// An amount of bytes, so that no number has to be guessed to be in MB or MiB.
public struct ByteCount: Hashable, Comparable, Sendable, LosslessStringConvertible {
  public var bytes: Int

  @inlinable
  public init(_ bytes: Int) { self.bytes = bytes }

  public static func kilobytes(_ n: Int) -> Self { Self(n * 1000) }
  public static func megabytes(_ n: Int) -> Self { Self(n * 1_000_000) }
  public static func gigabytes(_ n: Int) -> Self { Self(n * 1_000_000_000) }

  /// Reads `4096`, `128MB`, `1.5 GB`, `64MiB`: decimal units count by 1000,
  /// those with an i by 1024; case does not matter. `nil` for anything else.
  public init?(_ description: String) {
    let text = description.lowercased().filter { $0 != " " }
    let digits = text.prefix { $0.isASCII && $0.isNumber || $0 == "." }
    guard let amount = Double(digits), amount >= 0 else { return nil }
    let unit: Double
    switch text.dropFirst(digits.count) {
    case "", "b": unit = 1
    case "k", "kb": unit = 1e3
    case "m", "mb": unit = 1e6
    case "g", "gb": unit = 1e9
    case "t", "tb": unit = 1e12
    case "p", "pb": unit = 1e15
    case "ki", "kib": unit = 1024
    case "mi", "mib": unit = 1_048_576
    case "gi", "gib": unit = 1_073_741_824
    case "ti", "tib": unit = 1_099_511_627_776
    case "pi", "pib": unit = 1_125_899_906_842_624
    default: return nil
    }
    let bytes = amount * unit
    guard bytes < 9e18 else { return nil }
    self.bytes = Int(bytes.rounded())
  }

  /// Three significant digits in decimal units: `564 MB`, `1.5 GB`.
  public var description: String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"]
    var amount = Double(bytes)
    var unit = 0
    while amount >= 999.5, unit < units.count - 1 {
      amount /= 1000
      unit += 1
    }
    if unit == 0 { return "\(bytes) B" }
    let digits = amount < 9.995 ? 100.0 : amount < 99.95 ? 10.0 : 1.0
    let rounded = (amount * digits).rounded() / digits
    let text = rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
    return "\(text) \(units[unit])"
  }

  @inlinable
  public static func < (a: Self, b: Self) -> Bool { a.bytes < b.bytes }
}

extension ByteCount {
  /// The most that is believed of anybody: 1 EiB.
  package static let largest = ByteCount(1 << 60)

  /// The sum, which stays at the end of what a number can hold: the terms come from outside.
  package static func + (a: Self, b: Self) -> Self {
    let (sum, isTooMuch) = a.bytes.addingReportingOverflow(b.bytes)
    return Self(!isTooMuch ? sum : a.bytes < 0 ? .min : .max)
  }

  package static func += (a: inout Self, b: Self) { a = a + b }
}

extension ByteCount: Codable {
  /// - Throws: `DecodingError` for an amount that nobody has: a negative one, or more than 1 EiB.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    bytes = try container.decode(Int.self)
    guard 0...Self.largest.bytes ~= bytes else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "\(bytes) can't be an amount of bytes: there are 0 to 2^60 of them")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(bytes)
  }
}
