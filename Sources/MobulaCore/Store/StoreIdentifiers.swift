/// A process that uses a host's store: it pins objects and writes into arenas of its own.
public struct StoreClientID: Hashable, Sendable, Codable, CustomStringConvertible {
  /// The number.
  public let number: UInt64

  /// The client of this number.
  public init(_ number: UInt64) { self.number = number }

  public var description: String { "\(number)" }

  public init(from decoder: any Decoder) throws {
    number = try decoder.singleValueContainer().decode(UInt64.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(number)
  }
}

/// One memfd of a store. Never used twice, not even by a store that was started again on the same memory.
public struct SegmentID: Hashable, Sendable, Codable, CustomStringConvertible {
  /// The number.
  public let number: UInt64

  /// The segment of this number.
  public init(_ number: UInt64) { self.number = number }

  public var description: String { "\(number)" }

  public init(from decoder: any Decoder) throws {
    number = try decoder.singleValueContainer().decode(UInt64.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(number)
  }
}
