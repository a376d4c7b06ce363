import Glibc
import MobulaCore
import MobulaStore
import Synchronization

/// How many objects were evicted or deleted.
final class Evictions: Sendable {
  private let all = Atomic(0)
  var count: Int { all.load(ordering: .relaxed) }
  func add(_ count: Int) { all.add(count, ordering: .relaxed) }
}

/// Makes objects in the store's process as fast as it can, and has them go again.
final class Evictor: Sendable {
  private let isStopped = Atomic(false)
  private let hasEnded = Atomic(false)

  /// - Parameters:
  ///   - deletes: each before it is made again; otherwise they go as others need their room.
  ///   - objects: how many there are, one made after the other.
  init(_ store: Store, deletes: Bool, objects: Int, _ evictions: Evictions) {
    detachThread(named: "evictor") { [self] in
      var round: UInt64 = 0
      while !isStopped.load(ordering: .relaxed) {
        round += 1
        for index in 0..<objects {
          let number = GetTimes.number(index)
          if deletes, store.delete(.number(number)) { evictions.add(1) }
          // One that is here still is none that has to be made; one without room comes the next time.
          try? Self.make(number, round, store)
        }
      }
      hasEnded.store(true, ordering: .releasing)
    }
  }

  func stop() {
    isStopped.store(true, ordering: .relaxed)
    while !hasEnded.load(ordering: .acquiring) { usleep(200) }
  }

  private static func make(_ number: UInt64, _ round: UInt64, _ store: Store) throws {
    let writer = try store.receive(.number(number), geometry: ChunkGeometry(objectSize: GetTimes.evictedSize))
    guard let chunk = writer.claimChunk(from: 0) else { return }
    let memory = writer.memory(of: chunk)
    GetTimes.fill(memory, number, round: round)
    writer.commit(chunk, checksum: crc32c(UnsafeRawBufferPointer(memory)))
    _ = try writer.complete()
  }
}
