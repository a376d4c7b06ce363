internal import MobulaCore
internal import Synchronization

/// One client's page of shared memory, which it and the store map writable: its pins, what it
/// used lately, and two rings. It outlives the client.
///
/// | bytes | what | written by |
/// |---|---|---|
/// | 0..<4096 | the header's words, see `HeaderWord` | see there |
/// | `pins` | 4096 words: entry + 1, or 0 | client |
/// | `recents` | 512 words: entry + 1 | client |
/// | `unused` | 32 KiB | nobody |
/// | `announcements` | a ring of 4096 times 64 bytes | client |
/// | `returns` | a ring of 4096 words: offsets of freed regions | store |
///
/// The store believes nothing that it reads here: it checks every number.
///
/// `@unchecked Sendable`: the mapping stays as long as `mapping` does, and all of it is read and
/// written by atomic operations.
struct ClientPage: @unchecked Sendable {
  static let magic: UInt64 = 0x4D4F_4250_4147_4531  // MOBPAGE1
  static let pinCount = 4096
  static let recentCount = 512
  static let ringCount = 4096
  private static let pins = 4096
  private static let recents = pins + pinCount * 8
  private static let unused = recents + recentCount * 8
  private static let announcements = unused + 2048 * 16
  private static let returns = announcements + ringCount * 64
  static let size = returns + ringCount * 8

  /// Bytes from the start; those that different sides write lie in different cache lines.
  enum HeaderWord: Int {
    case magic = 0
    case client = 8
    case secretHigh = 16
    case secretLow = 24
    case process = 32
    /// Pin words from this number on were never used. Written by the client.
    case pinLimit = 128
    case recentCursor = 136
    /// How many were ever announced, by the client; and taken, by the store.
    case announced = 192
    case taken = 256
    /// How many regions were ever returned, by the store; and taken back, by the client.
    case returned = 320
    case takenBack = 384
  }

  let mapping: MemoryMapping
  private let base: UnsafeMutableRawPointer

  /// - Precondition: the mapping has at least `size` bytes.
  init(_ mapping: MemoryMapping) {
    precondition(mapping.bytes.count >= Self.size, "a client's page of \(mapping.bytes.count) bytes")
    self.mapping = mapping
    base = mapping.bytes.baseAddress!
  }

  @inline(__always)
  private func word(_ offset: Int) -> UnsafeMutablePointer<SharedWord> {
    (base + offset).assumingMemoryBound(to: SharedWord.self)
  }

  @inline(__always)
  func header(_ word: HeaderWord) -> UnsafeMutablePointer<SharedWord> { self.word(word.rawValue) }

  /// What a client shows to be taken for the one whose page this is.
  var secret: ClientSecret {
    ClientSecret(
      high: header(.secretHigh).pointee.load(ordering: .relaxed),
      low: header(.secretLow).pointee.load(ordering: .relaxed))
  }

  // MARK: Pins

  @inline(__always)
  func pin(_ index: Int) -> UnsafeMutablePointer<SharedWord> { word(Self.pins + index * 8) }

  /// Client: takes a free pin word near `start` for an entry; `nil` when all are in use. A fence has to follow.
  @inline(__always)
  func takePin(_ entry: Int, from start: Int) -> Int? {
    let value = UInt64(truncatingIfNeeded: entry + 1)
    var index = start
    for _ in 0..<Self.pinCount {
      let pin = pin(index)
      if pin.pointee.load(ordering: .relaxed) == 0 {
        // The limit first: the fence that follows makes both visible to a store that scans later.
        let limit = header(.pinLimit)
        if Int(truncatingIfNeeded: limit.pointee.load(ordering: .relaxed)) <= index {
          _ = limit.pointee.max(UInt64(index + 1), ordering: .relaxed)
        }
        if pin.pointee.compareExchange(expected: 0, desired: value, ordering: .relaxed).exchanged { return index }
      }
      index = (index + 1) & (Self.pinCount - 1)
    }
    return nil
  }

  /// Client: lets go; its reads of the object's bytes come before.
  @inline(__always)
  func releasePin(_ index: Int) { pin(index).pointee.store(0, ordering: .releasing) }

  /// Store: calls `body` for every entry that the client pins now. A fence has to come before.
  func forEachPin(_ body: (Int) -> Void) {
    let limit = header(.pinLimit).pointee.load(ordering: .acquiring)
    for index in 0..<Int(min(limit, UInt64(Self.pinCount))) {
      let value = pin(index).pointee.load(ordering: .acquiring)
      if value != 0, value <= UInt64(IndexLayout.maximumEntries) { body(Int(value) - 1) }
    }
  }

  /// Client: notes a use, for the store's choice of what to evict. Two threads may overwrite each other's note.
  @inline(__always)
  func noteUse(_ entry: Int) {
    let cursor = header(.recentCursor)
    let now = cursor.pointee.load(ordering: .relaxed)
    cursor.pointee.store(now &+ 1, ordering: .relaxed)
    let index = Int(truncatingIfNeeded: now) & (Self.recentCount - 1)
    word(Self.recents + index * 8).pointee.store(UInt64(truncatingIfNeeded: entry + 1), ordering: .relaxed)
  }

  /// Store: takes the uses that were noted, oldest first.
  func takeUses(_ body: (Int) -> Void) {
    let cursor = Int(truncatingIfNeeded: header(.recentCursor).pointee.load(ordering: .relaxed))
    for step in 0..<Self.recentCount {
      let note = word(Self.recents + ((cursor &+ step) & (Self.recentCount - 1)) * 8)
      let value = note.pointee.load(ordering: .relaxed)
      guard value != 0 else { continue }
      note.pointee.store(0, ordering: .relaxed)
      if value <= UInt64(IndexLayout.maximumEntries) { body(Int(value) - 1) }
    }
  }

  // MARK: Announcements

  struct Announcement: Hashable, Sendable {
    enum Kind: UInt64, Sendable {
      /// An object was written, with its trailer behind it.
      case put = 1
      /// The client has no use for an extent.
      case giveBack = 2
      /// A pin by call is let go.
      case unpin = 3
    }

    var kind: Kind
    /// Whether the client holds the object from now on.
    var holds = false
    var object = ObjectID(high: 0, low: 0)
    var offset = 0
    var size = 0
    /// Base 2 logarithm of the chunk size.
    var chunkShift = 0
    var trailerSize = 0
  }

  /// Client, one thread at a time: publishes an announcement; false when the ring is full.
  func announce(_ announcement: Announcement) -> Bool {
    let announced = header(.announced).pointee.load(ordering: .relaxed)
    guard announced &- header(.taken).pointee.load(ordering: .acquiring) < UInt64(Self.ringCount) else { return false }
    let slot = word(Self.announcements + Int(announced % UInt64(Self.ringCount)) * 64)
    slot[0].store(announcement.kind.rawValue | (announcement.holds ? 256 : 0), ordering: .relaxed)
    slot[1].store(announcement.object.high, ordering: .relaxed)
    slot[2].store(announcement.object.low, ordering: .relaxed)
    slot[3].store(UInt64(announcement.offset), ordering: .relaxed)
    slot[4].store(UInt64(announcement.size), ordering: .relaxed)
    slot[5].store(UInt64(announcement.chunkShift) | UInt64(announcement.trailerSize) << 8, ordering: .relaxed)
    // Everything that was written before, the object's bytes above all, is seen by who sees this.
    header(.announced).pointee.store(announced &+ 1, ordering: .releasing)
    return true
  }

  /// Whether everything that was announced was taken.
  var isTaken: Bool {
    header(.announced).pointee.load(ordering: .acquiring) == header(.taken).pointee.load(ordering: .acquiring)
  }

  /// Store: takes at most `limit` announcements, those that can't be understood as `nil`.
  func takeAnnouncements(limit: Int, _ body: (Announcement?) -> Void) -> Int {
    let announced = header(.announced).pointee.load(ordering: .acquiring)
    let first = header(.taken).pointee.load(ordering: .relaxed)
    var taken = first
    // A client that counts wrongly loses its announcements, and nobody else's.
    let waiting = announced &- taken
    if waiting > UInt64(Self.ringCount) { taken = announced &- UInt64(Self.ringCount) }
    var count = 0
    while taken != announced, count < limit {
      body(announcement(at: taken))
      taken &+= 1
      count += 1
      // One by one: a store that dies between two of them takes none twice but perhaps the one.
      header(.taken).pointee.store(taken, ordering: .releasing)
    }
    return count
  }

  private func announcement(at number: UInt64) -> Announcement? {
    let slot = word(Self.announcements + Int(truncatingIfNeeded: number % UInt64(Self.ringCount)) * 64)
    let kind = slot[0].load(ordering: .relaxed)
    let offset = slot[3].load(ordering: .relaxed)
    let size = slot[4].load(ordering: .relaxed)
    let shape = slot[5].load(ordering: .relaxed)
    guard let known = Announcement.Kind(rawValue: kind & 0xFF), offset < 1 << 56, size < 1 << 56, shape >> 8 < 1 << 40
    else { return nil }
    return Announcement(
      kind: known, holds: kind & 256 != 0,
      object: ObjectID(high: slot[1].load(ordering: .relaxed), low: slot[2].load(ordering: .relaxed)),
      offset: Int(offset), size: Int(size), chunkShift: Int(shape & 0xFF), trailerSize: Int(shape >> 8))
  }

  // MARK: Returned regions

  /// Store: tells the client that the region at `offset` is free again; false when the ring is full.
  func giveBack(_ offset: Int) -> Bool {
    let returned = header(.returned).pointee.load(ordering: .relaxed)
    guard returned &- header(.takenBack).pointee.load(ordering: .acquiring) < UInt64(Self.ringCount) else {
      return false
    }
    let slot = word(Self.returns + Int(truncatingIfNeeded: returned % UInt64(Self.ringCount)) * 8)
    slot.pointee.store(UInt64(offset), ordering: .relaxed)
    header(.returned).pointee.store(returned &+ 1, ordering: .releasing)
    return true
  }

  /// Client, one thread at a time: takes all regions that were returned.
  func takeReturns(_ body: (Int) -> Void) {
    let returned = header(.returned).pointee.load(ordering: .acquiring)
    var taken = header(.takenBack).pointee.load(ordering: .relaxed)
    if taken == returned { return }
    while taken != returned {
      body(
        Int(
          truncatingIfNeeded: word(Self.returns + Int(truncatingIfNeeded: taken % UInt64(Self.ringCount)) * 8).pointee
            .load(ordering: .relaxed)))
      taken &+= 1
    }
    header(.takenBack).pointee.store(taken, ordering: .releasing)
  }
}
