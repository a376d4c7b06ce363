import MobulaTestKit
import Testing

@testable import MobulaStore

struct RegionAllocatorTests {
  @Test func regionsAreAlignedAndFromTheFront() {
    var regions = RegionAllocator(size: 256)
    #expect(regions.allocate(1) == 0)
    #expect(regions.allocate(65) == 64)
    #expect(regions.allocate(64) == 192)
    #expect(regions.allocate(1) == nil)
    #expect(regions.freeBytes == 0)
  }

  @Test func neighboursAreJoined() {
    var regions = RegionAllocator(size: 256)
    for offset in [0, 64, 128, 192] { #expect(regions.allocate(64) == offset) }
    regions.deallocate(64, count: 64)
    regions.deallocate(192, count: 64)
    #expect(regions.allocate(128) == nil)
    regions.deallocate(128, count: 64)
    #expect(regions.allocate(192) == 64)
    regions.deallocate(0, count: 64)
    regions.deallocate(64, count: 192)
    #expect(regions.isEmpty)
    #expect(regions.allocate(256) == 0)
  }

  /// Against one boolean for every 64 bytes.
  @Test(arguments: 1...20 as ClosedRange<UInt64>)
  func agreesWithAModel(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let units = 128
    var regions = RegionAllocator(size: units * 64)
    var busy = Array(repeating: false, count: units)
    var live: [(offset: Int, count: Int)] = []
    for step in 0..<2000 {
      if live.isEmpty || Bool.random(using: &generator) {
        let count = Int.random(in: 1...900, using: &generator)
        let length = (count + 63) / 64
        let expected = (0...units - length).first { start in !busy[start..<start + length].contains(true) }
        let offset = regions.allocate(count)
        #expect(offset == expected.map { $0 * 64 }, "seed \(seed), step \(step)")
        guard let offset else { continue }
        for unit in offset / 64..<offset / 64 + length { busy[unit] = true }
        live.append((offset, count))
      } else {
        let region = live.remove(at: Int.random(in: live.indices, using: &generator))
        regions.deallocate(region.offset, count: region.count)
        for unit in region.offset / 64..<region.offset / 64 + (region.count + 63) / 64 { busy[unit] = false }
      }
      #expect(regions.freeBytes == busy.filter { !$0 }.count * 64, "seed \(seed), step \(step)")
    }
  }
}
