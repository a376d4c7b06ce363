/// What goes between a store and the keeper of its descriptors, one message a packet.
///
/// Four bytes, then the rest: the version (1), the kind, the number of attached descriptors, and
/// how many bytes follow. These are the key in UTF-8, or the count of `end`, most significant first.
enum KeeperMessage: Hashable, Sendable {
  /// Store to keeper: keep the attached descriptors, in place of any that have this key.
  case keep(key: String, count: Int)
  /// Store to keeper: close what has this key.
  case drop(key: String)
  /// Store to keeper: send an `entry` for all that is kept, and `end`.
  case list
  /// Keeper to store: the attached descriptors have this key.
  case entry(key: String, count: Int)
  /// Keeper to store: there were so many entries.
  case end(count: Int)

  static let version: UInt8 = 1
  static let longestKey = 200
  static let descriptorCounts = 1...4
  private static let headerSize = 4
  static let largestPacket = headerSize + longestKey

  /// How many descriptors belong to it.
  var descriptorCount: Int {
    switch self {
    case .keep(_, let count), .entry(_, let count): count
    case .drop, .list, .end: 0
    }
  }

  func encoded() -> [UInt8] {
    let (kind, rest): (UInt8, [UInt8]) =
      switch self {
      case .keep(let key, _): (1, Array(key.utf8))
      case .drop(let key): (2, Array(key.utf8))
      case .list: (3, [])
      case .entry(let key, _): (4, Array(key.utf8))
      case .end(let count): (5, [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: count >> $0) })
      }
    return [Self.version, kind, UInt8(descriptorCount), UInt8(rest.count)] + rest
  }

  /// - Returns: `nil` for anything that is no message of this version.
  init?(_ packet: [UInt8]) {
    guard packet.count >= Self.headerSize, packet[0] == Self.version,
      packet.count == Self.headerSize + Int(packet[3])
    else { return nil }
    let rest = packet.dropFirst(Self.headerSize)
    let count = Int(packet[2])
    switch packet[1] {
    case 1, 4:
      guard Self.descriptorCounts ~= count, let key = Self.key(rest) else { return nil }
      self = packet[1] == 1 ? .keep(key: key, count: count) : .entry(key: key, count: count)
    case 2:
      guard count == 0, let key = Self.key(rest) else { return nil }
      self = .drop(key: key)
    case 3:
      guard count == 0, rest.isEmpty else { return nil }
      self = .list
    case 5:
      guard count == 0, rest.count == 4 else { return nil }
      self = .end(count: rest.reduce(0) { $0 << 8 | Int($1) })
    default: return nil
    }
  }

  static func isKey(_ key: String) -> Bool { 1...longestKey ~= key.utf8.count }

  private static func key(_ bytes: ArraySlice<UInt8>) -> String? {
    guard let key = String(validating: bytes, as: UTF8.self), isKey(key) else { return nil }
    return key
  }
}
