/// An amount of one resource, in ten-thousandths, so that 0.1 + 0.2 is 0.3.
public struct ResourceAmount: Hashable, Comparable, Sendable, LosslessStringConvertible,
  ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral
{
  /// Units of 0.0001.
  public var tenThousandths: Int

  /// So many ten-thousandths.
  public init(tenThousandths: Int) { self.tenThousandths = tenThousandths }
  /// Beyond what fits (922 million million) it stays at the end.
  public init(_ value: Int) {
    let (product, overflow) = value.multipliedReportingOverflow(by: 10_000)
    tenThousandths = !overflow ? product : value < 0 ? .min : .max
  }
  /// Rounds to the nearest 0.0001; what doesn't fit stays at the end, and no number is nothing.
  public init(_ value: Double) {
    let scaled = (value * 10_000).rounded()
    tenThousandths = Int(exactly: scaled) ?? (scaled > 0 ? .max : scaled < 0 ? .min : 0)
  }
  public init(integerLiteral value: Int) { self.init(value) }
  public init(floatLiteral value: Double) { self.init(value) }

  /// Reads `3` or `0.25`; `nil` for negative amounts and anything else.
  public init?(_ description: String) {
    guard let value = decimalNumber(description), value < 9e14 else { return nil }
    self.init(value)
  }

  /// Nothing.
  public static let zero = Self(tenThousandths: 0)

  public var description: String {
    let whole = tenThousandths / 10_000
    let rest = (tenThousandths % 10_000).magnitude
    guard rest != 0 else { return "\(whole)" }
    let sign = tenThousandths < 0 && whole == 0 ? "-" : ""
    var digits = String(rest)
    digits = String(repeating: "0", count: 4 - digits.count) + digits
    while digits.hasSuffix("0") { digits.removeLast() }
    return "\(sign)\(whole).\(digits)"
  }

  /// The sum, which stays at the end of what fits.
  public static func + (a: Self, b: Self) -> Self { a.combined(with: b, Int.addingReportingOverflow) }
  /// The difference, which stays at the end of what fits.
  public static func - (a: Self, b: Self) -> Self { a.combined(with: b, Int.subtractingReportingOverflow) }
  public static func < (a: Self, b: Self) -> Bool { a.tenThousandths < b.tenThousandths }
}

extension ResourceAmount {
  /// Amounts come from outside: beyond what a number can hold they stay at its end.
  private func combined(
    with other: Self, _ operation: (Int) -> (Int) -> (partialValue: Int, overflow: Bool)
  ) -> Self {
    let (value, overflow) = operation(tenThousandths)(other.tenThousandths)
    return Self(tenThousandths: !overflow ? value : value < 0 ? .max : .min)
  }
}

extension ResourceAmount: Codable {
  public init(from decoder: any Decoder) throws {
    tenThousandths = try decoder.singleValueContainer().decode(Int.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(tenThousandths)
  }
}

/// What work needs, or what a pod has: amounts by name. `CPU` and `memory`
/// (bytes) have fixed names; any other name is a custom resource.
public struct Resources: Hashable, Sendable, Codable, CustomStringConvertible, ExpressibleByDictionaryLiteral {
  /// Amounts by name; none of them zero.
  public private(set) var amounts: [Name: ResourceAmount]

  /// CPUs.
  public static let cpu: Name = "CPU"
  /// GPUs: whole ones, or a part of one. Whoever has some is told which.
  public static let gpu: Name = "GPU"
  /// Memory, in bytes.
  public static let memory: Name = "memory"
  /// The most memory that a pod can have in its books: 25 TB.
  package static let maximumMemory = ByteCount(largestAmount / 10_000)

  /// These amounts, without those that are zero.
  public init(_ amounts: [Name: ResourceAmount] = [:]) {
    self.amounts = amounts.filter { $0.value != .zero }
  }

  public init(dictionaryLiteral elements: (Name, ResourceAmount)...) {
    self.init(Dictionary(elements, uniquingKeysWith: +))
  }

  private enum CodingKeys: String, CodingKey { case amounts }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    self.init(try container.decode([Name: ResourceAmount].self, forKey: .amounts))
  }

  /// The amount of one resource; zero of what is not there.
  public subscript(name: Name) -> ResourceAmount {
    get { amounts[name] ?? .zero }
    set { amounts[name] = newValue == .zero ? nil : newValue }
  }

  /// The largest amount of one resource that books add up without overflow, in ten-thousandths.
  private static let largestAmount = 250_000_000_000_000_000

  /// Whether the amounts, which come from outside, are neither negative nor absurd.
  package var arePlausible: Bool { amounts.values.allSatisfy { 0...Self.largestAmount ~= $0.tenThousandths } }

  /// The same with no CPU.
  package var withoutCPU: Resources {
    var rest = self
    rest[Self.cpu] = .zero
    return rest
  }

  /// Whether all of `demand` fits into what is here.
  public func covers(_ demand: Resources) -> Bool {
    demand.amounts.allSatisfy { self[$0.key] >= $0.value }
  }

  /// The sums of all amounts.
  public static func + (a: Self, b: Self) -> Self {
    Self(a.amounts.merging(b.amounts, uniquingKeysWith: +))
  }

  /// What is left of `a` without `b`; amounts may become negative, which `covers` then refuses.
  public static func - (a: Self, b: Self) -> Self {
    var result = a
    for (name, amount) in b.amounts { result[name] = result[name] - amount }
    return result
  }

  /// `CPU=2,memory=4 GB,worker_pod_b=3`, by name.
  public var description: String {
    amounts.sorted { $0.key < $1.key }.map { name, amount in
      name == Self.memory
        ? "\(name)=\(ByteCount(amount.tenThousandths / 10_000))" : "\(name)=\(amount)"
    }.joined(separator: ",")
  }

  /// Reads `worker_pod_b=3,GPU=0.5,memory=4GB`.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) that names the part that can't be read.
  public init(parsing text: String) throws(MobulaError) {
    var amounts: [Name: ResourceAmount] = [:]
    // Bytes, since a mark behind a comma makes it another character to Swift.
    for part in text.utf8.split(separator: UInt8(ascii: ",")).map({ Substring($0) }) {
      let sides = part.utf8.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
        .map { Substring($0) }
      let name = Name(sides[0].trimmingSpaces())
      guard sides.count == 2, !name.isEmpty, amounts[name] == nil else {
        throw MobulaError(
          .invalidArgument,
          "\"\(part.printable)\" is not a resource: write NAME=AMOUNT once for each, as in worker_pod_b=3,GPU=0.5.")
      }
      let value = sides[1].trimmingSpaces()
      if name == Self.memory, let count = ByteCount(value), count <= Self.maximumMemory {
        amounts[name] = ResourceAmount(count.bytes)
      } else if let amount = ResourceAmount(value), amount.tenThousandths <= Self.largestAmount {
        amounts[name] = amount
      } else {
        throw MobulaError(
          .invalidArgument,
          name == Self.memory
            ? "The amount \"\(value.printable)\" of memory is no size, or one beyond \(Self.maximumMemory): write memory=4GB."
            : "The amount \"\(value.printable)\" of \(name) is no number up to 25 million million: write \(name)=1 or \(name)=0.5."
        )
      }
    }
    self.init(amounts)
  }
}

extension Substring {
  fileprivate func trimmingSpaces() -> String {
    var text = self
    while text.first == " " { text.removeFirst() }
    while text.last == " " { text.removeLast() }
    return String(text)
  }
}
