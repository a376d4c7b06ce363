import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

struct ExtentAllocatorTests {
  private let mebibyte = 1 << 20

  @Test func slotsWasteLittle() {
    var slots: Set<Int> = []
    for size in 1...SizeClass.largest {
      let slot = ExtentAllocator.footprint(size)
      slots.insert(slot)
      guard slot >= size, slot.isMultiple(of: 64), slot - size < max(64, slot / 8) else {
        Issue.record("a region of \(size) bytes takes \(slot)")
        return
      }
      guard SizeClass.slotSize(SizeClass.index(for: size)) == slot, SizeClass.index(for: size) < SizeClass.count else {
        Issue.record("size \(size) is in class \(SizeClass.index(for: size))")
        return
      }
    }
    #expect(slots.count == SizeClass.count)
    #expect((0..<16).map(SizeClass.slotSize) == Array(stride(from: 64, through: 1024, by: 64)))
    #expect(ExtentAllocator.footprint(32_769) == 65_536)
    #expect(ExtentAllocator.footprint(65_537) == 131_072)
    #expect(ExtentAllocator.footprint(ExtentAllocator.largestRegion) == ExtentAllocator.largestRegion)
  }

  @Test func extentsGrowWithWhatIsOwned() {
    var allocator = ExtentAllocator()
    #expect(allocator.extentSize(for: 1) == mebibyte)
    #expect(allocator.extentSize(for: 700_000) == 2 * mebibyte)
    #expect(allocator.extentSize(for: ExtentAllocator.largestRegion) == 8 * mebibyte)
    var sizes: [Int] = []
    var end = 0
    for _ in 0..<7 {
      let size = allocator.extentSize(for: 1)
      sizes.append(size / mebibyte)
      allocator.add(end..<end + size)
      end += size
    }
    #expect(sizes == [1, 1, 2, 4, 8, 16, 16])
    #expect(allocator.ownedBytes == 48 * mebibyte && allocator.freeBytes == 48 * mebibyte)
  }

  @Test func aSmallStoreGivesSmallExtents() {
    let allocator = ExtentAllocator(maximumExtent: 65_536)
    #expect(allocator.extentSize(for: 1) == 65_536)
    #expect(allocator.extentSize(for: 65_536) == 65_536)
    #expect(allocator.extentSize(for: 65_537) == 131_072)
    #expect(allocator.extentSize(for: ExtentAllocator.largestRegion) == ExtentAllocator.largestRegion)
  }

  @Test func anExtentIsUsedUpAndGivenBack() {
    var allocator = ExtentAllocator()
    #expect(allocator.allocate(1) == nil)
    let begin = 3 << 30
    allocator.add(begin..<begin + 65_536)
    #expect(allocator.emptyExtents == 1)
    for slot in 0..<1024 { #expect(allocator.allocate(64) == begin + slot * 64) }
    #expect(allocator.allocate(1) == nil)
    #expect(allocator.freeBytes == 0 && allocator.usedBytes == 65_536)
    #expect(allocator.takeEmptyExtents(keeping: 0) == [])
    #expect(allocator.free(offset: begin + 640) == true)
    #expect(allocator.allocate(65) == nil)
    #expect(allocator.allocate(10) == begin + 640)
    for slot in 0..<1024 { #expect(allocator.free(offset: begin + slot * 64) == true) }
    #expect(allocator.allocate(65_536) == begin)
    #expect(allocator.free(offset: begin) == true)
    #expect(allocator.takeEmptyExtents(keeping: 1) == [])
    #expect(allocator.takeEmptyExtents(keeping: 0) == [begin..<begin + 65_536])
    #expect(allocator.ownedBytes == 0 && allocator.extents.isEmpty && allocator.emptyExtents == 0)
  }

  @Test func offsetsThatWereNotGivenOutAreRefused() {
    var allocator = ExtentAllocator()
    allocator.add(mebibyte..<2 * mebibyte)
    #expect(allocator.allocate(20_000) == mebibyte)
    #expect(allocator.allocate(200_000) == mebibyte + 65_536)
    let used = allocator.usedBytes
    // Before, behind, inside of a slot, a free slot, the rest of a span with slots, inside of a run, a free span.
    let wrong = [
      -1, 0, .min, .max, mebibyte - 64, 2 * mebibyte, mebibyte + 1, mebibyte + 64, mebibyte + 20_480,
      mebibyte + 3 * 20_480, mebibyte + 65_536 + 64, mebibyte + 2 * 65_536, mebibyte + 15 * 65_536,
    ]
    for offset in wrong { #expect(allocator.free(offset: offset) == false, "\(offset)") }
    #expect(allocator.usedBytes == used)
    #expect(allocator.free(offset: mebibyte) == true)
    #expect(allocator.free(offset: mebibyte) == false)
    #expect(allocator.free(offset: mebibyte + 65_536) == true)
    #expect(allocator.free(offset: mebibyte + 65_536) == false)
    #expect(allocator.usedBytes == 0 && allocator.emptyExtents == 1)
  }

  @Test func theFirstEmptyExtentsAreKept() {
    var allocator = ExtentAllocator()
    for place in [5, 1, 9, 3] { allocator.add(place * mebibyte..<(place + 1) * mebibyte) }
    #expect(allocator.extents.map { $0.lowerBound / mebibyte } == [1, 3, 5, 9])
    #expect(allocator.allocate(mebibyte) == mebibyte)
    #expect(allocator.takeEmptyExtents(keeping: 1).map { $0.lowerBound / mebibyte } == [5, 9])
    #expect(allocator.extents.map { $0.lowerBound / mebibyte } == [1, 3])
    #expect(allocator.allocate(mebibyte) == 3 * mebibyte)
    allocator.add(0..<mebibyte)
    #expect(allocator.allocate(1) == 0)
  }

  @Test func spanBitmapsFindRuns() {
    var bitmap = SpanBitmap(count: 256)
    #expect(bitmap.firstRun(256) == 0)
    bitmap.set(0..<100, free: false)
    bitmap.set(130..<131, free: false)
    #expect(bitmap.firstRun(30) == 100)
    #expect(bitmap.firstRun(31) == 131)
    #expect(bitmap.firstRun(126) == nil)
    bitmap.set(60..<70, free: true)
    #expect(bitmap.firstRun(10) == 60)
    #expect(SpanBitmap(count: 1).firstRun(2) == nil)
    #expect(SpanBitmap(count: 64).firstRun(64) == 0)
  }

  @Test(arguments: 1...40 as ClosedRange<UInt64>)
  func agreesWithAModel(seed: UInt64) {
    var simulation = ExtentSimulation(seed: seed)
    for step in 0..<3000 {
      simulation.step()
      if let problem = simulation.problem() {
        Issue.record("seed \(seed), step \(step): \(problem)")
        return
      }
    }
    simulation.end()
    #expect(simulation.problem() == nil, "seed \(seed)")
    #expect(simulation.allocator.usedBytes == 0 && simulation.allocator.ownedBytes == 0, "seed \(seed)")
    #expect(simulation.allocator.extents.isEmpty && simulation.granted.isEmpty, "seed \(seed)")
    #expect(simulation.reused > 0 && simulation.returned > 0, "seed \(seed)")
  }
}

/// A client and its store: what was given out is a list, and what is free follows from it.
private struct ExtentSimulation {
  static let span = ExtentAllocator.spanSize
  var allocator: ExtentAllocator
  /// What the store granted and did not get back.
  var granted: [Range<Int>] = []
  /// Regions in memory that another region had before, and extents that went back.
  var reused = 0
  var returned = 0
  private var live: [Int: Int] = [:]
  private var formerly: Set<Int> = []
  private var mostlyAllocates = true
  private var generator: SeededGenerator
  private var violation: String?

  init(seed: UInt64) {
    generator = SeededGenerator(seed: seed)
    allocator = ExtentAllocator(maximumExtent: 65_536 << Int.random(in: 0...8, using: &generator))
  }

  mutating func step() {
    if Int.random(in: 0..<200, using: &generator) == 0 { mostlyAllocates.toggle() }
    switch Int.random(in: 0..<100, using: &generator) {
    case 0..<5: freeWrong()
    case 5..<7: giveBack(keeping: Int.random(in: 0...2, using: &generator))
    case 7..<(mostlyAllocates ? 70 : 40): allocate()
    default: free()
    }
  }

  mutating func end() {
    while !live.isEmpty { free() }
    giveBack(keeping: 0)
  }

  private mutating func allocate() {
    let limit = [64, 1000, 1024, 5000, 32_768, 100_000, 300_000, ExtentAllocator.largestRegion]
      .randomElement(using: &generator)!
    let size = Int.random(in: 1...limit, using: &generator)
    if let offset = allocator.allocate(size) { return record(offset, size) }
    if hasRoom(size) { violation = "no room for \(size) bytes" }
    let count = allocator.extentSize(for: size)
    if count < ExtentAllocator.footprint(size) { violation = "an extent of \(count) bytes for a region of \(size)" }
    guard let extent = grant(count) else { return }
    allocator.add(extent)
    granted.append(extent)
    guard let offset = allocator.allocate(size) else {
      violation = "no room for \(size) bytes in an extent of \(count)"
      return
    }
    record(offset, size)
  }

  private mutating func record(_ offset: Int, _ size: Int) {
    let footprint = ExtentAllocator.footprint(size)
    let region = offset..<offset + footprint
    if footprint < size || offset % 64 != 0 { violation = "\(size) bytes at \(region)" }
    if !granted.contains(where: { $0.clamped(to: region) == region }) { violation = "\(region) is in no extent" }
    if live.contains(where: { region.overlaps($0.key..<$0.key + $0.value) }) { violation = "\(region) is not free" }
    if formerly.contains(offset) { reused += 1 }
    live[offset] = footprint
  }

  private mutating func free() {
    // In order of their offsets, as a dictionary's own order differs from run to run.
    guard let offset = live.keys.sorted().randomElement(using: &generator) else { return }
    if !allocator.free(offset: offset) { violation = "the region at \(offset) is not known" }
    formerly.insert(offset)
    live[offset] = nil
  }

  /// Offsets of regions that are free, or of none.
  private mutating func freeWrong() {
    guard let extent = granted.randomElement(using: &generator) else { return }
    var wrong = [Int.random(in: extent, using: &generator), Int.random(in: extent, using: &generator) & ~63]
    wrong.append(contentsOf: formerly.sorted().prefix(8))
    wrong.append(contentsOf: live.keys.sorted().prefix(8).flatMap { [$0 + 1, $0 + 64, $0 - 64] })
    for offset in wrong where live[offset] == nil {
      if allocator.free(offset: offset) { violation = "\(offset) was freed" }
    }
  }

  private mutating func giveBack(keeping: Int) {
    let empty = granted.filter { extent in !live.keys.contains { extent.contains($0) } }
      .sorted { $0.lowerBound < $1.lowerBound }
    if allocator.emptyExtents != empty.count { violation = "\(allocator.emptyExtents) empty extents" }
    let taken = allocator.takeEmptyExtents(keeping: keeping)
    if taken != Array(empty.dropFirst(keeping)) { violation = "\(taken) went back" }
    granted.removeAll { taken.contains($0) }
    returned += taken.count
  }

  /// The first free place for an extent of `count` bytes among some, at any multiple of 64 KiB.
  private mutating func grant(_ count: Int) -> Range<Int>? {
    let begin = Int.random(in: 0..<64, using: &generator) * Self.span
    return stride(from: begin, to: 96 << 20, by: Self.span).lazy.map { $0..<$0 + count }
      .first { [granted] extent in !granted.contains { $0.overlaps(extent) } }
  }

  private func hasRoom(_ size: Int) -> Bool {
    let footprint = ExtentAllocator.footprint(size)
    var regions: [Int: [Int]] = [:]
    for (offset, taken) in live {
      for span in offset / Self.span...(offset + taken - 1) / Self.span { regions[span, default: []].append(taken) }
    }
    for extent in granted {
      var run = 0
      for span in extent.lowerBound / Self.span..<extent.upperBound / Self.span {
        let taken = regions[span] ?? []
        run = taken.isEmpty ? run + 1 : 0
        if run * Self.span >= footprint { return true }
        if footprint < Self.span, taken.first == footprint, taken.count < Self.span / footprint { return true }
      }
    }
    return false
  }

  func problem() -> String? {
    if let violation { return violation }
    if allocator.usedBytes != live.values.reduce(0, +) { return "\(allocator.usedBytes) bytes are used" }
    let owned = granted.reduce(0) { $0 + $1.count }
    if allocator.ownedBytes != owned { return "\(allocator.ownedBytes) bytes are owned, not \(owned)" }
    return allocator.extents == granted.sorted { $0.lowerBound < $1.lowerBound } ? nil : "other extents"
  }
}
