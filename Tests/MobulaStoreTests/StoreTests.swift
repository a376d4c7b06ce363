import Glibc
import MobulaCore
import Testing

@testable import MobulaStore

@Suite struct StoreTests {
  @Test(arguments: [1, 8, 200, 1000, 65_536, 300_000, 3_000_000, 9_000_000])
  func whatOneClientPutsAnotherReads(size: Int) throws {
    let running = try RunningStore()
    let maker = try running.client()
    let reader = try running.client()
    try maker.put(.number(1), size: size)
    #expect(try reader.bytes(of: .number(1)) == pattern(size: size, seed: 7))
    // By now the index has it.
    #expect(try reader.pin(.number(1)) != nil)
    #expect(running.store.info(of: .number(1))?.geometry.objectSize == size)
    #expect(eventually { running.sealed.map(\.object) == [.number(1)] })
    #expect(running.sealed.first?.isHeld == true)
  }

  @Test func theDigestIsThatOfTheBytes() throws {
    let running = try RunningStore()
    let maker = try running.client()
    let bytes = pattern(size: 700_000, seed: 3)
    try maker.put(.number(1), size: bytes.count, seed: 3)
    try maker.confirm(.number(1))
    let geometry = try ChunkGeometry(objectSize: bytes.count)
    let checksums = (0..<geometry.count).map { index in
      bytes.withUnsafeBytes { crc32c(UnsafeRawBufferPointer(rebasing: $0[geometry.range(of: index)])) }
    }
    #expect(running.store.info(of: .number(1))?.digest == ObjectDigest(geometry: geometry, checksums: checksums))
  }

  @Test func whatIsNotThereIsNotFound() throws {
    let running = try RunningStore()
    let client = try running.client()
    #expect(try client.pin(.number(1)) == nil)
    #expect { _ = try client.pinSlowly(.number(1)) } throws: { ($0 as? MobulaError)?.code == .notFound }
    #expect(running.store.info(of: .number(1)) == nil && running.store.progress(of: .number(1)) == nil)
  }

  @Test func aSecondObjectOfTheSameNameIsRefused() throws {
    let running = try RunningStore()
    let client = try running.client()
    try client.put(.number(1), size: 100, seed: 1)
    try client.confirm(.number(1))
    try client.put(.number(1), size: 100, seed: 2)
    #expect { try client.confirm(.number(1)) } throws: { ($0 as? MobulaError)?.code == .alreadyExists }
    #expect(try client.bytes(of: .number(1)) == pattern(size: 100, seed: 1))
    #expect {
      try client.put(.number(1), size: 100); _ = try client.draft(.number(1), size: 9_000_000)
    } throws: {
      ($0 as? MobulaError)?.code == .alreadyExists
    }
  }

  @Test func aDraftThatIsGivenUpLeavesItsMemory() throws {
    let running = try RunningStore(capacity: 64 << 20)
    let client = try running.client()
    for size in [500, 200_000, 30_000_000, 30_000_000, 30_000_000] {
      let draft = try client.draft(.number(size), size: size)
      _ = consume draft
    }
    #expect(running.store.statistics.objects == 0)
    #expect(eventually { running.store.statistics.used <= 64 << 20 })
  }

  /// An entry that a deleted object has left is another's next: who received the first has no more to say of it.
  @Test(arguments: [false, true])
  func whoIsLateToGiveUpTouchesNoOtherObject(wasComplete: Bool) throws {
    let running = try RunningStore()
    let store = running.store
    let bytes = pattern(size: 5000, seed: 1)
    let geometry = try ChunkGeometry(objectSize: bytes.count)
    func fill(_ writer: any ReplicaWriter) {
      bytes.withUnsafeBytes { writer.memory(of: 0).copyMemory(from: $0) }
    }
    let checksum = bytes.withUnsafeBytes { crc32c($0) }
    var late: (any ReplicaWriter)? = try store.receive(.number(1), geometry: geometry)
    try #require(late!.claim(0))
    fill(late!)
    if wasComplete {
      late!.commit(0, checksum: checksum)
      _ = try late!.complete()
      #expect(store.delete(.number(1)))
    } else {
      #expect(store.delete(.number(1)))
      // The last who wrote into it, so that nothing of it is left.
      late!.abandon(0)
    }
    #expect(store.statistics.objects == 0)
    let next = try store.receive(.number(2), geometry: geometry)
    try #require(next.claim(0))
    late!.abandonReplica(MobulaError(.unavailable, "The source is gone."))
    late = nil
    fill(next)
    next.commit(0, checksum: checksum)
    _ = try next.complete()
    #expect(store.info(of: .number(2))?.geometry == geometry)
  }

  @Test func deletingWaitsForReaders() throws {
    let running = try RunningStore()
    let maker = try running.client()
    let reader = try running.client()
    try maker.put(.number(1), size: 9_000_000)
    let pinned = try reader.pinSlowly(.number(1))
    #expect(running.store.delete(.number(1)))
    #expect(try reader.pin(.number(1)) == nil)
    try maker.put(.number(2), size: 9_000_000, seed: 99)
    #expect(Array(pinned.bytes) == pattern(size: 9_000_000, seed: 7))
    let before = running.store.statistics
    #expect(before.doomed == 1)
    _ = consume pinned
    #expect(eventually { running.store.statistics.doomed == 0 })
  }

  @Test func memoryIsUsedAgainByItsMaker() throws {
    let running = try RunningStore(capacity: 64 << 20)
    let client = try running.client()
    for round in 0..<200 {
      try client.put(.number(round), size: 1_000_000)
      try client.confirm(.number(round))
      running.store.delete(.number(round))
    }
    for round in 1000..<1050 {
      try client.put(.number(round), size: 20_000_000)
      try client.confirm(.number(round))
      running.store.delete(.number(round))
    }
    #expect(running.store.statistics.used <= 64 << 20)
    #expect(running.store.statistics.objects == 0)
  }

  @Test func aFullStoreSaysWhatFillsIt() throws {
    let running = try RunningStore(capacity: 64 << 20, roomDeadline: .milliseconds(50))
    let maker = try running.client("maker")
    let reader = try running.client("reader of big things")
    try maker.put(.number(1), size: 40_000_000)
    let pinned = try reader.pinSlowly(.number(1))
    #expect { try maker.put(.number(2), size: 40_000_000) } throws: { error in
      let text = "\(error)"
      return (error as? MobulaError)?.code == .full && text.contains("40 MB pinned: 40 MB by reader of big things")
        && text.contains("67.1 MB capacity")
    }
    withExtendedLifetime(pinned.bytes.count) {}
    _ = consume pinned
    #expect { try maker.put(.number(3), size: 70_000_000) } throws: { error in
      (error as? MobulaError)?.code == .full && "\(error)".contains("larger than the whole store")
    }
  }

  @Test func aPutWaitsForRoom() throws {
    let running = try RunningStore(capacity: 64 << 20, roomDeadline: .seconds(10))
    let maker = try running.client()
    try maker.put(.number(1), size: 40_000_000)
    try maker.confirm(.number(1))
    detachThread(named: "delete") {
      usleep(100_000)
      running.store.delete(.number(1))
    }
    try maker.put(.number(2), size: 40_000_000, seed: 9)
    #expect(try maker.bytes(of: .number(2)) == pattern(size: 40_000_000, seed: 9))
  }
}
