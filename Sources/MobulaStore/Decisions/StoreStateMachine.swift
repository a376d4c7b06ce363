internal import MobulaCore

/// What a store decides: which object lies where, who needs it, what has to go.
///
/// One `mutating func` an event; what it returns is for the shell to do. Bytes count from the moment
/// they are promised until they were given back to the system, so that `used` is never less than what
/// the segments take, and never over `capacity`.
struct StoreStateMachine: Sendable {
  /// An object's number in the index.
  typealias EntryNumber = Int

  enum Phase: UInt8, Hashable, Sendable {
    /// Its maker writes. Can transition to: `sealed`, or gone.
    case writing
    /// The store fills it, and the writer pins it. Can transition to: `sealed`, `doomed`.
    case receiving
    /// Immutable, and in the index. Can transition to: `spilled`, `doomed`, or gone.
    case sealed
    /// On disk, or in another spill place, alone. Can transition to: `restoring`, or gone.
    case spilled
    /// On its way back from there, and pinned by that. Can transition to: `sealed`, `spilled`, `doomed`.
    case restoring
    /// Deleted, not found any more, but still pinned. Can transition to: gone.
    case doomed
  }

  /// How an object may make room.
  enum Tier: Int, Hashable, Sendable, CaseIterable {
    /// There is another replica, and nobody here holds it: evicted first.
    case cache
    /// There is another replica: evicted next.
    case heldCache
    /// This replica is what keeps the object: spilled, never evicted.
    case primary
  }

  struct Entry: Sendable {
    var object: ObjectID
    var segment: SegmentID
    var offset: Int
    var size: Int
    var trailerSize: Int
    var chunkShift: UInt8
    var phase: Phase
    /// Whether its region is its own, in whole pages, and not a piece of an extent.
    var isDirect: Bool
    var isCache: Bool
    var isHeld: Bool
    var maker: StoreClientID?
    /// By call, by sources, by the writer that fills it: all but those in the clients' pages.
    var pins = 0
    /// Neighbours in its tier's list, from the least to the most recently used; -1 at its ends.
    var previous = -1
    var next = -1
    var isListed = false
    /// Whether the table finds it by its object.
    var isFound = true
    /// Its maker broke its trailer, so that it can't be written to disk.
    var isDamaged = false
    /// Nobody can ask for it any more, though nobody has said yet that it may go: it is evicted as if there were another.
    var isUnwanted = false

    var tier: Tier { isUnwanted ? .cache : isCache ? isHeld ? .heldCache : .cache : .primary }
    /// The bytes from `offset` that belong to it.
    var footprint: Int { ObjectTrailer.offset(objectSize: size) + trailerSize }
  }

  struct Segment: Sendable {
    let size: Int
    /// Who writes it; `nil` for the store itself.
    var maker: StoreClientID?
    /// The user whose processes may get its memory recycled.
    let user: UInt32
    var space: VirtualSpace
    /// Entries whose bytes are here.
    var entries = 0
    /// Once its maker is gone: how many regions lie in each page that was part of an extent.
    var pages: [Int: Int] = [:]

    /// An entry's bytes are here no more.
    ///
    /// - Returns: whether its pages are counted one by one, and otherwise its maker, if that lives. Asked with the
    ///   change, so that the segment is found once, and in its place.
    fileprivate mutating func leave(_ entry: Entry) -> (isByPage: Bool, maker: StoreClientID?) {
      entries -= 1
      return (!pages.isEmpty && pages[entry.offset / pageSize * pageSize] != nil, maker)
    }
  }

  struct Client: Sendable {
    let name: String
    let process: Int32
    let user: UInt32
    let segment: SegmentID
    /// By slot of the client's page.
    var grants: [Int: GrantTable.Grant] = [:]
    var freeSlots: [Int] = []
    var nextSlot = 0
    /// Extents in order, for bisection.
    var extents: [Extent] = []
    /// Objects that it creates, and has not announced.
    var creating: [ObjectID: EntryNumber] = [:]
    /// Pins by call.
    var pins: [EntryNumber: Int] = [:]

    /// The index of the extent in which `offset` lies.
    func extent(of offset: Int) -> Int? {
      var low = 0
      var high = extents.count
      while low < high {
        let middle = (low + high) / 2
        if extents[middle].range.upperBound <= offset { low = middle + 1 } else { high = middle }
      }
      return low < extents.count && extents[low].range.contains(offset) ? low : nil
    }

    fileprivate mutating func withExtent<Result>(of offset: Int, _ body: (inout Extent) -> Result) -> Result? {
      extent(of: offset).map { body(&extents[$0]) }
    }

    /// Where it makes objects, and whether it is making this one. Changes nothing, and is asked as if it did: a value
    /// that is read would be copied out of its dictionary, with all that it has.
    fileprivate mutating func making(_ object: ObjectID) -> (segment: SegmentID, created: EntryNumber?) {
      (segment, creating.isEmpty ? nil : creating[object])
    }
  }

  /// A client's memory for small objects.
  struct Extent: Hashable, Sendable {
    let range: Range<Int>
    /// Entries whose bytes are here: it can't be given back before they are gone.
    private(set) var entries = 0
    private var taken: UnitMap

    init(range: Range<Int>) {
      self.range = range
      taken = UnitMap(bytes: range.count)
    }

    /// An entry's region is here from now on; false when it is not inside, or another's bytes are there.
    mutating func take(_ region: Range<Int>) -> Bool {
      guard range.lowerBound <= region.lowerBound, region.upperBound <= range.upperBound,
        taken.take(region.lowerBound - range.lowerBound..<region.upperBound - range.lowerBound)
      else { return false }
      entries += 1
      return true
    }

    /// Whether no entry's bytes are at this offset.
    func isFree(at offset: Int) -> Bool { taken.isFree(at: offset - range.lowerBound) }

    mutating func free(_ region: Range<Int>) {
      taken.free(region.lowerBound - range.lowerBound..<region.upperBound - range.lowerBound)
      entries -= 1
    }
  }

  /// Changes the extent of a client in which `offset` lies, in place: a copy of the client meanwhile would make
  /// one of all its extents. `nil` without such an extent.
  @discardableResult
  mutating func withExtent<Result>(of offset: Int, _ id: StoreClientID, _ body: (inout Extent) -> Result) -> Result? {
    clients[id]?.withExtent(of: offset, body) ?? nil
  }

  /// Where a client makes objects, and the entry of one that it is making.
  mutating func making(_ object: ObjectID, _ id: StoreClientID) -> (segment: SegmentID, created: EntryNumber?)? {
    clients[id]?.making(object)
  }

  /// An entry's bytes are not in its segment any more: see `Segment.leave`.
  mutating func leaveSegment(_ entry: Entry) -> (isByPage: Bool, maker: StoreClientID?) {
    segments[entry.segment]!.leave(entry)
  }

  /// What is over, for the shell to do.
  struct Freed: Hashable, Sendable {
    struct Region: Hashable, Sendable {
      let client: StoreClientID
      let offset: Int
    }
    struct Grant: Hashable, Sendable {
      let client: StoreClientID
      let slot: Int
    }
    struct Pages: Hashable, Sendable {
      let segment: SegmentID
      let range: Range<Int>
    }

    /// Entries that are no more: drop what is kept for them.
    var entries: [EntryNumber] = []
    /// Regions of living clients' extents, for their allocators.
    var regions: [Region] = []
    var grants: [Grant] = []
    /// To give back to the system, then `gaveBack`.
    var pages: [Pages] = []
    /// To unmap and close, after their pages were given back.
    var segments: [SegmentID] = []

    static func += (a: inout Freed, b: Freed) {
      a.entries += b.entries
      a.regions += b.regions
      a.grants += b.grants
      a.pages += b.pages
      a.segments += b.segments
    }
  }

  /// Asks whether entries are pinned in clients' pages, and takes those that are not out of the index.
  /// Those that are stay in it, or can be found no more (`doomed`). True for the pinned.
  typealias Retire = (_ entries: [EntryNumber], _ dooms: Bool) -> [Bool]

  let capacity: Int
  /// The most bytes that free memory is kept warm in.
  let warmLimit: Int
  var clients: [StoreClientID: Client] = [:]
  /// All objects; those that are doomed can't be found.
  var entries = EntryTable()
  var doomed: Set<EntryNumber> = []
  var segments: [SegmentID: Segment] = [:]
  /// What the store fills itself, and how its small objects lie there.
  var ownSegment: SegmentID?
  var ownExtents: ExtentAllocator
  /// Empty segments of clients that are gone, for the next clients of the same user.
  var spares: [SegmentID] = []
  /// Bytes of all segments that are reserved, promised, or not given back yet.
  var used = 0
  /// Of these, what is being given back.
  var leaving = 0

  static let smallestCapacity = 1_048_576
  /// Objects up to this size, with their trailers, lie in extents.
  static let largestSmall = 4 << 20

  /// - Parameters:
  ///   - capacity: the most bytes that segments may take; at least 1 MiB.
  ///   - warmLimit: the most bytes of free memory to keep for the next objects.
  /// - Throws: `MobulaError` (`invalidArgument`).
  init(capacity: Int, warmLimit: Int) throws(MobulaError) {
    guard capacity >= Self.smallestCapacity else {
      throw MobulaError(
        .invalidArgument,
        "A store of \(ByteCount(capacity)) is too small: start the host with --capacity of at least 1MiB.")
    }
    self.capacity = capacity / pageSize * pageSize
    self.warmLimit = warmLimit
    ownExtents = ExtentAllocator(maximumExtent: Self.maximumExtent(capacity: capacity))
  }

  /// Bytes of the largest extent: 16 MiB, or a 64th of a small capacity.
  static func maximumExtent(capacity: Int) -> Int {
    var size = 65_536
    while size < 16 << 20, size * 2 * 64 <= capacity { size *= 2 }
    return size
  }

  var maximumExtent: Int { Self.maximumExtent(capacity: capacity) }

  /// The largest footprint that goes into an extent.
  var largestSmall: Int { min(Self.largestSmall, maximumExtent / 4) }

  /// The addresses of a segment: twice the capacity, since free ranges scatter.
  var segmentSize: Int { max(capacity * 2, 8 << 20) / 65_536 * 65_536 }

  // MARK: Entries

  mutating func newEntry(_ entry: Entry) -> EntryNumber {
    segments[entry.segment]!.entries += 1
    return entries.add(entry)
  }

  /// Whether something holds the object; held objects are evicted after all others.
  mutating func setHeld(_ object: ObjectID, _ isHeld: Bool) {
    change(object) { entry in
      entry.isHeld = isHeld
      if isHeld { entry.isUnwanted = false }
    }
  }

  /// Nobody can ask for the object any more: when there is no room otherwise, it goes first.
  mutating func setUnwanted(_ object: ObjectID) {
    change(object) { entry in
      entry.isHeld = false
      entry.isUnwanted = true
    }
  }

  /// Whether there is another replica, so that this one may be evicted.
  ///
  /// One that is to be kept is wanted by somebody.
  mutating func setCache(_ object: ObjectID, _ isCache: Bool) {
    change(object) { entry in
      entry.isCache = isCache
      if !isCache { entry.isUnwanted = false }
    }
  }

  /// Somebody elsewhere asks for the object.
  mutating func setWanted(_ object: ObjectID) {
    guard let (_, entry) = entries.find(object), entry.isUnwanted else { return }
    change(object) { $0.isUnwanted = false }
  }

  private mutating func change(_ object: ObjectID, _ body: (inout Entry) -> Void) {
    if let number = entries.number(of: object) { entries.change(number, body) }
  }

  static func notFound(_ object: ObjectID) -> MobulaError {
    MobulaError(.notFound, "Object \(object) is not in this host's store: fetch it first, or check its identifier.")
  }

  static func exists(_ object: ObjectID) -> MobulaError {
    MobulaError(
      .alreadyExists, "Object \(object) is in this host's store already: use it, or choose a new identifier.")
  }

  func client(_ id: StoreClientID) throws(MobulaError) -> Client {
    guard let client = clients[id] else {
      throw MobulaError(.unavailable, "Client \(id) is not attached to the store: connect to the host again.")
    }
    return client
  }

  /// `size` rounded up to whole pages.
  static func pages(_ size: Int) -> Int { (size + pageSize - 1) / pageSize * pageSize }
}
