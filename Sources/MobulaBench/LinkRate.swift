/// The rate of a network interface, in `tc`'s notation: `840mbit`, `1gbit`.
public struct LinkRate: Hashable, Comparable, Sendable, LosslessStringConvertible {
  public var bitsPerSecond: Int

  public init(bitsPerSecond: Int) { self.bitsPerSecond = bitsPerSecond }

  /// Reads a number followed by `bit`, `kbit`, `mbit` or `gbit` (units by 1000, case does not matter);
  /// `nil` for anything else, and for less than 1 kbit.
  public init?(_ description: String) {
    let text = description.lowercased()
    let digits = text.prefix { $0.isASCII && $0.isNumber || $0 == "." }
    guard let amount = Double(digits) else { return nil }
    let unit: Double
    switch text.dropFirst(digits.count) {
    case "bit": unit = 1
    case "kbit": unit = 1e3
    case "mbit": unit = 1e6
    case "gbit": unit = 1e9
    default: return nil
    }
    guard (1e3...1e15).contains(amount * unit) else { return nil }
    bitsPerSecond = Int((amount * unit).rounded())
  }

  public var description: String {
    for (unit, name) in [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1000, "kbit")]
    where bitsPerSecond % unit == 0 {
      return "\(bitsPerSecond / unit)\(name)"
    }
    return "\(bitsPerSecond)bit"
  }

  public static func < (a: Self, b: Self) -> Bool { a.bitsPerSecond < b.bitsPerSecond }
}
