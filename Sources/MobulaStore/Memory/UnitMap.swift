/// Which units of 64 bytes of an extent objects take: no two may share one, since a unit that many claim would make
/// as many objects out of no memory.
struct UnitMap: Hashable, Sendable {
  static let unit = 64

  /// A one is a unit that is taken.
  private var words: [UInt64]

  /// Nothing is taken of `bytes`.
  init(bytes: Int) { words = Array(repeating: 0, count: (bytes / Self.unit + 63) / 64) }

  /// Takes the units that a range of bytes touches; false, and nothing changes, when one is taken or there are fewer.
  mutating func take(_ range: Range<Int>) -> Bool {
    let masks = Masks(range)
    guard range.lowerBound >= 0, masks.last < words.count else { return false }
    for index in masks.first...masks.last where words[index] & masks.mask(of: index) != 0 { return false }
    for index in masks.first...masks.last { words[index] |= masks.mask(of: index) }
    return true
  }

  /// Whether nothing takes the unit of this byte.
  ///
  /// - Precondition: it is one of those that the map is of.
  func isFree(at offset: Int) -> Bool {
    let unit = offset / Self.unit
    return words[unit / 64] >> UInt64(unit % 64) & 1 == 0
  }

  /// The units of a range that `take` took are free again.
  mutating func free(_ range: Range<Int>) {
    let masks = Masks(range)
    for index in masks.first...masks.last { words[index] &= ~masks.mask(of: index) }
  }

  /// The words that have a range's units, and which of their bits these are.
  private struct Masks {
    let first: Int
    let last: Int
    private let front: UInt64
    private let back: UInt64

    /// - Precondition: the range is not empty.
    init(_ range: Range<Int>) {
      let units = range.lowerBound / UnitMap.unit...(range.upperBound - 1) / UnitMap.unit
      first = units.lowerBound / 64
      last = units.upperBound / 64
      front = UInt64.max << UInt64(units.lowerBound % 64)
      back = UInt64.max >> UInt64(63 - units.upperBound % 64)
    }

    func mask(of index: Int) -> UInt64 { (index == first ? front : .max) & (index == last ? back : .max) }
  }
}
