internal import MobulaCore
internal import Synchronization

/// A 64-bit word of shared memory. On read-only mappings it is only ever loaded.
typealias SharedWord = Atomic<UInt64>

/// Where things lie in the index, a sparse memfd that the store writes and every client maps read-only.
///
/// | bytes | what |
/// |---|---|
/// | 0..<4096 | the header's words, see `HeaderWord` |
/// | 4096 + 64n | entry n: state and generation, id (2 words), segment, offset, size, geometry, unused |
/// | from `tables` | hash tables of 2^12 to 2^25 buckets of one word, two of each size |
///
/// A bucket is 0 (never used since the table was made), `tombstone`, or the hash's lower 32 bits
/// over the entry's number plus one. Entries stay where they are when the table grows.
enum IndexLayout {
  static let magic: UInt64 = 0x4D4F_4249_4E44_4558  // MOBINDEX
  static let version: UInt64 = 2
  static let headerSize = 4096
  static let entrySize = 64
  static let maximumEntries = 1 << 24
  static let tables = headerSize + entrySize * maximumEntries
  static let tableBits = 12...25
  static let size = tables + 16 * ((1 << (tableBits.upperBound + 1)) - (1 << tableBits.lowerBound))
  static let tombstone: UInt64 = 0xFFFF_FFFF

  enum HeaderWord: Int {
    case magic, version, instanceHigh, instanceLow, incarnation
    /// The table in use: bits, half, and a number that differs from table to table.
    case table
    /// Entries from this number on were never used.
    case entryLimit
    /// Not zero while the store's thread sleeps: who announces something then rings.
    case isAsleep
    case nextSegment, nextClient
  }

  /// What the lower eight bits of an entry's first word say; the others are its generation.
  enum State {
    static let empty: UInt64 = 0
    /// Can be pinned.
    static let ready: UInt64 = 1
    /// The store looks whether somebody pins it: try again, or take it for gone.
    static let evicting: UInt64 = 2
    /// Deleted, and still pinned by somebody.
    static let doomed: UInt64 = 3
  }

  struct Table: Hashable {
    let bits: Int
    let half: Int
    let number: UInt64

    init(bits: Int, half: Int, number: UInt64) {
      self.bits = bits
      self.half = half
      self.number = number
    }

    init(word: UInt64) {
      // What is read may be anybody's bytes: it must not lead outside of the mapping.
      bits = min(max(Int(word & 0xFF), tableBits.lowerBound), tableBits.upperBound)
      half = Int(word >> 8 & 1)
      number = word >> 16
    }

    var word: UInt64 { UInt64(bits) | UInt64(half) << 8 | number << 16 }
    var offset: Int { tables + 16 * ((1 << bits) - (1 << tableBits.lowerBound)) + half * 8 << bits }
    var count: Int { 1 << bits }
  }

  /// Identifiers are random, but those of tests and of other programs need not be.
  @inline(__always)
  static func hash(_ object: ObjectID) -> UInt64 {
    var hash = object.low ^ object.high &* 0x9E37_79B9_7F4A_7C15
    hash = (hash ^ hash >> 32) &* 0xD6E8_FEB8_6659_FD93
    return hash ^ hash >> 29
  }
}

/// The index as a client sees it. Every read is of one word; nothing is locked.
///
/// `@unchecked Sendable`: the mapping stays as long as `mapping` does, and is only read, by atomic loads.
struct IndexReader: @unchecked Sendable {
  let mapping: MemoryMapping
  private let base: UnsafeMutableRawPointer

  struct Found {
    let entry: Int
    let state: UInt64
    let segment: UInt64
    let offset: Int
    let size: Int
  }

  init(_ mapping: MemoryMapping) {
    self.mapping = mapping
    base = mapping.bytes.baseAddress!
  }

  @inline(__always)
  func word(at offset: Int) -> UnsafeMutablePointer<SharedWord> {
    (base + offset).assumingMemoryBound(to: SharedWord.self)
  }

  @inline(__always)
  func header(_ word: IndexLayout.HeaderWord) -> UnsafeMutablePointer<SharedWord> { self.word(at: word.rawValue * 8) }

  @inline(__always)
  func entry(_ number: Int) -> UnsafeMutablePointer<SharedWord> {
    word(at: IndexLayout.headerSize + number * IndexLayout.entrySize)
  }

  /// Looks for a ready object. What it returns may be gone already: pin the entry, then `isStill`.
  @inline(__always)
  func find(_ object: ObjectID) -> Found? {
    let hash = IndexLayout.hash(object)
    let tag = UInt64(UInt32(truncatingIfNeeded: hash))
    var tableWord = header(.table).pointee.load(ordering: .acquiring)
    while true {
      let table = IndexLayout.Table(word: tableWord)
      let buckets = word(at: table.offset)
      let mask = table.count - 1
      var bucket = Int(hash >> UInt64(64 - table.bits))
      var left = table.count
      while left > 0 {
        let word = buckets[bucket].load(ordering: .acquiring)
        if word == 0 { break }
        let number = Int(word & 0xFFFF_FFFF) - 1
        if word >> 32 == tag, number < IndexLayout.maximumEntries {
          let entry = entry(number)
          let state = entry[0].load(ordering: .acquiring)
          if state & 0xFF == IndexLayout.State.ready, entry[2].load(ordering: .relaxed) == object.low,
            entry[1].load(ordering: .relaxed) == object.high
          {
            return Found(
              entry: number, state: state, segment: entry[3].load(ordering: .relaxed),
              offset: Int(truncatingIfNeeded: entry[4].load(ordering: .relaxed)),
              size: Int(truncatingIfNeeded: entry[5].load(ordering: .relaxed)))
          }
        }
        bucket = (bucket + 1) & mask
        left -= 1
      }
      let now = header(.table).pointee.load(ordering: .acquiring)
      if now == tableWord { return nil }
      tableWord = now
    }
  }

  /// Whether the entry is what `find` saw. True after a pin and a fence means that the pin holds.
  @inline(__always)
  func isStill(_ found: Found) -> Bool { entry(found.entry)[0].load(ordering: .acquiring) == found.state }
}
