/// A process that uses a host's store: it pins objects and writes into arenas of its own.
public struct StoreClientID: Hashable, Sendable, CustomStringConvertible {
  public let number: UInt64

  public init(_ number: UInt64) { self.number = number }

  public var description: String { "\(number)" }
}

/// One memfd of a store. Never used twice, not even by a store that was
/// started again: the upper 32 bits differ from start to start, so that a
/// client can't take an old mapping for a new segment.
public struct SegmentID: Hashable, Sendable, Codable, CustomStringConvertible {
  public let number: UInt64

  public init(_ number: UInt64) { self.number = number }

  public var description: String { "\(number >> 32).\(number & 0xFFFF_FFFF)" }

  public init(from decoder: any Decoder) throws {
    number = try decoder.singleValueContainer().decode(UInt64.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(number)
  }
}

/// An object from its creation to the return of its memory. Another object
/// with the same identifier, made after this one was deleted, is another entry.
struct EntryID: Hashable, Sendable {
  let number: UInt64
}

/// Where an object's bytes are: `size` bytes from `offset` of a segment.
struct Region: Hashable, Sendable {
  let segment: SegmentID
  let offset: Int
  let size: Int
}
