/// An amount of bytes, so that no number has to be guessed to be in MB or MiB.
public struct ByteCount: Hashable, Comparable, Sendable, LosslessStringConvertible {
  /// How many.
  public var bytes: Int

  /// So many bytes.
  @inlinable
  public init(_ bytes: Int) { self.bytes = bytes }

  /// Thousands of bytes.
  public static func kilobytes(_ n: Int) -> Self { Self(n * 1000) }
  /// Millions of bytes.
  public static func megabytes(_ n: Int) -> Self { Self(n * 1_000_000) }
  /// Thousand millions of bytes.
  public static func gigabytes(_ n: Int) -> Self { Self(n * 1_000_000_000) }

  /// Reads `4096`, `128MB`, `1.5 GB`, `64MiB`: decimal units count by 1000,
  /// those with an i by 1024; case does not matter. `nil` for anything else, and for more than 1 EiB.
  public init?(_ description: String) {
    guard description.utf8.allSatisfy({ $0 < 0x80 }) else { return nil }
    let (amount, rest) = leadingNumber(description.lowercased())
    guard let amount else { return nil }
    let unit: Double
    switch rest {
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
    guard bytes <= Double(Self.largest.bytes) else { return nil }
    self.bytes = Int(bytes.rounded())
  }

  /// Three significant digits in decimal units: `564 MB`, `1.5 GB`.
  public var description: String { text { $0.rounded() } }

  /// As an option takes it, `565MB`, and never less than there are bytes: for advice, where a little less would not do.
  public var roundedUp: String { text { $0.rounded(.up) }.filter { $0 != " " } }

  private func text(_ rounding: (Double) -> Double) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"]
    var amount = Double(bytes)
    var unit = 0
    while rounding(amount) >= 1000, unit < units.count - 1 {
      amount /= 1000
      unit += 1
    }
    if unit == 0 { return "\(bytes) B" }
    let digits = rounding(amount * 100) < 1000 ? 100.0 : rounding(amount * 10) < 1000 ? 10.0 : 1.0
    let rounded = rounding(amount * digits) / digits
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

/// The number that a text begins with, in ASCII digits with at most one point, and what comes after it and the spaces
/// around it. Unlike `Double` it takes no `nan`, `inf`, `0x10` or `1e5`.
func leadingNumber(_ text: String) -> (number: Double?, rest: Substring) {
  var rest = Substring(text)
  func dropSpaces() { rest = rest.drop { $0 == " " } }
  dropSpaces()
  let digits = rest.prefix { "0"..."9" ~= $0 || $0 == "." }
  rest = rest.dropFirst(digits.count)
  dropSpaces()
  while rest.last == " " { rest.removeLast() }
  return (Double(digits), rest)
}

/// A number of only digits and at most one point; what `Double` reads beside is none.
package func decimalNumber(_ text: String) -> Double? {
  text.utf8.allSatisfy { 0x30...0x39 ~= $0 || $0 == UInt8(ascii: ".") } ? Double(text) : nil
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
