import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaStore

/// A store with a spill place and no folder.
struct StorePlaceTests {
  private static let sizes = (0..<12).map { 2_000_000 + $0 * 1000 }

  /// Puts three times what the store holds.
  private static func fill(_ running: RunningStore, _ client: StoreClient) throws {
    for (number, size) in sizes.enumerated() {
      try client.put(.number(number), size: size, seed: UInt8(number))
      try client.confirm(.number(number))
    }
  }

  private static func expectAll(_ running: RunningStore, _ client: StoreClient) throws {
    for (number, size) in sizes.enumerated() {
      try running.store.restore(.number(number))
      #expect(try client.bytes(of: .number(number)) == pattern(size: size, seed: UInt8(number)), "object \(number)")
    }
  }

  @Test func threeTimesTheCapacityComesBack() async throws {
    try await onThread(named: "test") {
      let place = MemoryPlace()
      let running = try RunningStore(capacity: 8 << 20, place: place)
      let client = try running.client()
      try Self.fill(running, client)
      let statistics = running.store.statistics
      #expect(statistics.spilledElsewhere >= 8 && statistics.spilled == statistics.spilledElsewhere)
      #expect(statistics.used <= 8 << 20)
      #expect(eventually { place.names.count == running.store.statistics.spilledElsewhere })
      // What is known of them is known without the place.
      place.set(.refuses(MobulaError(.unavailable, "Away.")))
      for (number, size) in Self.sizes.enumerated() {
        #expect(running.store.info(of: .number(number))?.geometry.objectSize == size)
      }
      place.set(.none)
      try Self.expectAll(running, client)
      try Self.expectAll(running, client)
      #expect(eventually { place.names.count == running.store.statistics.spilledElsewhere }, "restored copies go")
      for number in Self.sizes.indices { running.store.delete(.number(number)) }
      #expect(eventually { place.names == [] })
      // What is there at the end goes with the store.
      try Self.fill(running, client)
      #expect(!place.names.isEmpty)
      running.store.close()
      #expect(place.names == [])
    }
  }

  @Test func noObjectIsLostWhileThePlaceFails() async throws {
    try await onThread(named: "test") {
      let place = MemoryPlace()
      let running = try RunningStore(capacity: 8 << 20, roomDeadline: .milliseconds(500), place: place)
      let client = try running.client()
      try Self.fill(running, client)
      for fault in [MemoryPlace.Fault.refuses(MobulaError(.denied, "S3 denies access: check it.")), .hangs] {
        place.set(fault)
        let start = ContinuousClock.now
        for number in 0..<3 {
          // A sentence, in time, and nothing is lost by it.
          #expect(code { try client.put(.number(100 + number), size: 5_000_000) } == .inputOutput)
        }
        #expect(start.duration(to: .now) < .seconds(15))
        let spilled = try #require(Self.sizes.indices.first { running.store.isSpilled(.number($0)) })
        place.set(.refuses(MobulaError(.unavailable, "Away.")))
        #expect(code { try running.store.restore(.number(spilled)) } != nil)
        #expect(running.store.isSpilled(.number(spilled)), "it stays, and can be asked for again")
      }
      place.set(.none)
      #expect(running.gone == [])
      try Self.expectAll(running, client)
    }
  }

  @Test func aDamagedItemIsLostAndSaidToBe() async throws {
    try await onThread(named: "test") {
      let place = MemoryPlace()
      let running = try RunningStore(capacity: 8 << 20, place: place)
      let client = try running.client()
      try Self.fill(running, client)
      let spilled = try #require(Self.sizes.indices.first { running.store.isSpilled(.number($0)) })
      place.state.withLock { state in
        for name in state.items.keys where name.hasPrefix("\(ObjectID.number(spilled)).") {
          state.items[name]![1_000_000] ^= 0x10
        }
      }
      #expect(code { try running.store.restore(.number(spilled)) } == .corrupted)
      #expect(running.gone == [.number(spilled)])
      #expect(running.store.info(of: .number(spilled)) == nil)
      #expect(eventually { !place.names.contains { $0.hasPrefix("\(ObjectID.number(spilled)).") } })
    }
  }
}
