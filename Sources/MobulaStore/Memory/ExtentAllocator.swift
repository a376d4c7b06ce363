/// Gives out regions of 64 bytes to 4 MiB inside extents, which the store granted.
///
/// An extent is split into spans of 64 KiB. A span holds slots of one size class, or is part of a run of
/// whole spans for a region above 32 KiB. Offsets count from the front of the arena. All books are flat
/// arrays here, none is in the arena, so what others write there cannot confuse them.
struct ExtentAllocator: Sendable {
  static let spanSize = 65_536
  /// Bytes of the largest region.
  static let largestRegion = 4 << 20
  static let largestExtent = 16 << 20

  /// Bytes of the largest extent to ask for, unless one region needs more.
  let maximumExtent: Int
  /// Bytes of all extents.
  private(set) var ownedBytes = 0
  /// Bytes that regions take, each counted with its footprint.
  private(set) var usedBytes = 0
  /// How many extents are wholly free, for `takeEmptyExtents`.
  private(set) var emptyExtents = 0

  /// In order of their offsets.
  private var books: [Extent] = []
  /// Where each of `books` begins, in one piece for the bisection of `free`.
  private var begins: [Int] = []
  /// No extent before this one in `books` has a free span.
  private var firstWithRoom = 0
  /// The spans of all extents: those of one are next to each other.
  private var spans: [Span] = []
  /// Sixteen words for each span: a one is a free slot.
  private var freeSlots: [UInt64] = []
  /// For each size class the first of the spans that have a free slot, or -1.
  private var open = [Int32](repeating: -1, count: SizeClass.count)
  /// Where in `spans` extents of 1, 2, 4... spans were that are gone.
  private var vacant = [[Int]](repeating: [], count: 9)

  /// - Parameter maximumExtent: a power of two from 64 KiB to 16 MiB: less than 16 MiB where the store is small.
  init(maximumExtent: Int = ExtentAllocator.largestExtent) {
    precondition(Self.isExtentSize(maximumExtent), "extents of at most \(maximumExtent) bytes")
    self.maximumExtent = maximumExtent
  }

  /// Bytes that no region takes, perhaps not in one piece, nor of use to every size.
  var freeBytes: Int { ownedBytes - usedBytes }

  /// In order of their offsets.
  var extents: [Range<Int>] { books.map(\.range) }

  /// The bytes that a region of `size` takes: a slot, or whole spans.
  static func footprint(_ size: Int) -> Int {
    precondition(size > 0, "a region has at least one byte")
    if size <= SizeClass.largest { return SizeClass.slotSize(SizeClass.index(for: size)) }
    return spanCount(size) * spanSize
  }

  // MARK: Regions

  /// Where a region of `size` bytes begins, from 1 to `largestRegion`, at a multiple of 64; `nil` when no
  /// extent has room: then `add` one of `extentSize(for:)` bytes.
  mutating func allocate(_ size: Int) -> Int? {
    precondition(size > 0 && size <= Self.largestRegion, "a region of \(size) bytes")
    guard size <= SizeClass.largest else { return allocateRun(Self.spanCount(size)) }
    let sizeClass = SizeClass.index(for: size)
    var index = Int(open[sizeClass])
    if index < 0 {
      guard let fresh = openSpan(sizeClass) else { return nil }
      index = fresh
    }
    let word = spans[index].openWords.trailingZeroBitCount
    let bits = freeSlots[index << 4 + word]
    let slot = word << 6 + bits.trailingZeroBitCount
    freeSlots[index << 4 + word] = bits & (bits &- 1)
    spans[index].freeSlots -= 1
    if bits & (bits &- 1) == 0 {
      spans[index].openWords &= ~(1 << UInt16(word))
      if spans[index].openWords == 0 { close(index, sizeClass) }
    }
    let slotSize = Int(spans[index].slotUnits) << 6
    usedBytes += slotSize
    return spans[index].begin + slot * slotSize
  }

  /// Takes back the region that begins at `offset`; false, and nothing changes, when there is none.
  mutating func free(offset: Int) -> Bool {
    let at = lastExtent(from: offset)
    guard at >= 0, offset < books[at].range.upperBound, offset & (SizeClass.unit - 1) == 0 else { return false }
    let place = (offset - begins[at]) >> 16
    let index = books[at].firstSpan + place
    switch spans[index].use {
    case .free, .rest: return false
    case .run:
      guard offset == spans[index].begin else { return false }
      let count = Int(spans[index].runLength)
      for each in index..<index + count { spans[each].use = .free }
      release(place, count, at)
      usedBytes -= count << 16
    case .slots:
      let unit = UInt32(truncatingIfNeeded: (offset & (Self.spanSize - 1)) >> 6)
      let slotUnits = UInt32(spans[index].slotUnits)
      let slot = Int(unit / slotUnits)
      let word = index << 4 + slot >> 6
      let bit = UInt64(1) << UInt64(slot & 63)
      guard UInt32(slot) * slotUnits == unit, slot < Int(spans[index].slots), freeSlots[word] & bit == 0 else {
        return false
      }
      freeSlots[word] |= bit
      usedBytes -= Int(slotUnits) << 6
      let openWords = spans[index].openWords
      spans[index].openWords = openWords | 1 << UInt16(slot >> 6)
      spans[index].freeSlots += 1
      if openWords == 0 { link(index, Int(spans[index].sizeClass)) }
      if spans[index].freeSlots == spans[index].slots {
        close(index, Int(spans[index].sizeClass))
        spans[index].use = .free
        release(place, 1, at)
      }
    }
    return true
  }

  // MARK: Extents

  /// Bytes of the extent to ask the store for when a region of `size` has no room: as much as is owned, from
  /// 1 MiB to `maximumExtent`, and room for two such regions where that limit allows, for one in any case.
  func extentSize(for size: Int) -> Int {
    precondition(size > 0 && size <= Self.largestRegion, "a region of \(size) bytes")
    let footprint = Self.footprint(size)
    let wanted = max(Self.powerOfTwo(atLeast: 2 * footprint), Self.powerOfTwo(atMost: max(ownedBytes, 1 << 20)))
    return max(min(wanted, maximumExtent), Self.powerOfTwo(atLeast: max(footprint, Self.spanSize)))
  }

  /// Takes over an extent from the store: a power of two from 64 KiB to 16 MiB, at a multiple of 64 KiB.
  mutating func add(_ extent: Range<Int>) {
    precondition(
      extent.lowerBound >= 0 && extent.lowerBound.isMultiple(of: Self.spanSize) && Self.isExtentSize(extent.count),
      "an extent at \(extent)")
    let at = lastExtent(from: extent.lowerBound) + 1
    precondition(at == 0 || books[at - 1].range.upperBound <= extent.lowerBound, "extent \(extent) is here already")
    precondition(at == books.count || extent.upperBound <= begins[at], "extent \(extent) is here already")
    let count = extent.count / Self.spanSize
    let firstSpan: Int
    if let again = vacant[count.trailingZeroBitCount].popLast() {
      firstSpan = again
    } else {
      firstSpan = spans.count
      spans.append(contentsOf: repeatElement(Span(), count: count))
      freeSlots.append(contentsOf: repeatElement(0, count: count * 16))
    }
    for place in 0..<count { spans[firstSpan + place].begin = extent.lowerBound + place * Self.spanSize }
    let book = Extent(range: extent, firstSpan: firstSpan, freeSpans: SpanBitmap(count: count), freeCount: count)
    books.insert(book, at: at)
    begins.insert(extent.lowerBound, at: at)
    firstWithRoom = min(firstWithRoom, at)
    ownedBytes += extent.count
    emptyExtents += 1
  }

  /// Forgets extents without a region, in order, but for the first `keeping` of them: they go back to the store.
  mutating func takeEmptyExtents(keeping: Int) -> [Range<Int>] {
    precondition(keeping >= 0, "\(keeping) extents cannot be kept")
    guard emptyExtents > keeping else { return [] }
    var taken: [Range<Int>] = []
    var kept = 0
    for extent in books where extent.isEmpty {
      if kept < keeping {
        kept += 1
      } else {
        vacant[(extent.range.count / Self.spanSize).trailingZeroBitCount].append(extent.firstSpan)
        ownedBytes -= extent.range.count
        taken.append(extent.range)
      }
    }
    var passed = 0
    books.removeAll { extent in
      if extent.isEmpty { passed += 1 }
      return extent.isEmpty && passed > keeping
    }
    begins = books.map(\.range.lowerBound)
    emptyExtents = kept
    firstWithRoom = 0
    return taken
  }

  // MARK: Spans

  private mutating func allocateRun(_ count: Int) -> Int? {
    guard let index = takeSpans(count) else { return nil }
    for each in index..<index + count { spans[each].use = .rest }
    spans[index].use = .run
    spans[index].runLength = UInt16(count)
    usedBytes += count * Self.spanSize
    return spans[index].begin
  }

  /// Makes a free span one of `sizeClass`, all of its slots free.
  private mutating func openSpan(_ sizeClass: Int) -> Int? {
    guard let index = takeSpans(1) else { return nil }
    let slotSize = SizeClass.slotSize(sizeClass)
    let slots = Self.spanSize / slotSize
    let words = (slots + 63) / 64
    for word in 0..<words { freeSlots[index << 4 + word] = .max }
    if slots & 63 != 0 { freeSlots[index << 4 + words - 1] = 1 << UInt64(slots & 63) - 1 }
    spans[index].use = .slots
    spans[index].sizeClass = UInt8(sizeClass)
    spans[index].slotUnits = UInt16(slotSize / SizeClass.unit)
    spans[index].slots = UInt16(slots)
    spans[index].freeSlots = UInt16(slots)
    spans[index].openWords = UInt16(truncatingIfNeeded: 1 << words - 1)
    link(index, sizeClass)
    return index
  }

  /// The first of `count` spans in a row that were free, by first fit; `nil` when there are none.
  private mutating func takeSpans(_ count: Int) -> Int? {
    while firstWithRoom < books.count, books[firstWithRoom].freeCount == 0 { firstWithRoom += 1 }
    for at in firstWithRoom..<books.count where books[at].freeCount >= count {
      guard let place = books[at].freeSpans.firstRun(count) else { continue }
      if books[at].isEmpty { emptyExtents -= 1 }
      books[at].freeSpans.set(place..<place + count, free: false)
      books[at].freeCount -= count
      return books[at].firstSpan + place
    }
    return nil
  }

  /// Gives `count` spans from `place` on back to extent `at`.
  private mutating func release(_ place: Int, _ count: Int, _ at: Int) {
    books[at].freeSpans.set(place..<place + count, free: true)
    books[at].freeCount += count
    if books[at].isEmpty { emptyExtents += 1 }
    firstWithRoom = min(firstWithRoom, at)
  }

  /// Puts a span in front of those of its class that have a free slot.
  private mutating func link(_ index: Int, _ sizeClass: Int) {
    let next = open[sizeClass]
    spans[index].next = next
    spans[index].previous = -1
    if next >= 0 { spans[Int(next)].previous = Int32(index) }
    open[sizeClass] = Int32(index)
  }

  /// Takes a span out of those that have a free slot.
  private mutating func close(_ index: Int, _ sizeClass: Int) {
    let next = spans[index].next
    let previous = spans[index].previous
    if next >= 0 { spans[Int(next)].previous = previous }
    if previous >= 0 { spans[Int(previous)].next = next } else { open[sizeClass] = next }
  }

  /// The last extent that begins at `offset` or before, by bisection; -1 when there is none.
  private func lastExtent(from offset: Int) -> Int {
    var low = 0
    var high = begins.count
    while low < high {
      let middle = (low + high) / 2
      if begins[middle] <= offset { low = middle + 1 } else { high = middle }
    }
    return low - 1
  }

  private static func spanCount(_ size: Int) -> Int { (size + spanSize - 1) / spanSize }

  private static func isExtentSize(_ size: Int) -> Bool {
    size >= spanSize && size <= largestExtent && size & (size - 1) == 0
  }

  private static func powerOfTwo(atMost size: Int) -> Int { 1 << (Int.bitWidth - 1 - size.leadingZeroBitCount) }
  private static func powerOfTwo(atLeast size: Int) -> Int { 1 << (Int.bitWidth - (size - 1).leadingZeroBitCount) }
}

extension ExtentAllocator {
  private struct Extent: Sendable {
    let range: Range<Int>
    /// The index of its first span.
    let firstSpan: Int
    var freeSpans: SpanBitmap
    var freeCount: Int

    var isEmpty: Bool { freeCount << 16 == range.count }
  }

  private struct Span: Sendable {
    enum Use: UInt8 {
      case free
      /// Slots of one size class.
      case slots
      /// The first span of a run.
      case run
      /// A span of a run, but not the first.
      case rest
    }

    /// The offset in the arena.
    var begin = 0
    /// The spans before and after it that have a free slot of the same class, or -1.
    var next: Int32 = -1
    var previous: Int32 = -1
    /// A one for each word of `freeSlots` that is not zero.
    var openWords: UInt16 = 0
    var freeSlots: UInt16 = 0
    var slots: UInt16 = 0
    /// The size of a slot in units of 64 bytes.
    var slotUnits: UInt16 = 0
    /// The spans of the run that begins here.
    var runLength: UInt16 = 0
    var sizeClass: UInt8 = 0
    var use = Use.free
  }
}
