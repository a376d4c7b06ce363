import MobulaCore
import Synchronization

/// A `ChunkSink` in memory that remembers what it was told.
///
/// `@unchecked Sendable`: the memory is written by who claimed the chunk, the rest is in a `Mutex`.
final class MemorySink: ChunkSink, @unchecked Sendable {
  struct State {
    var free: Set<Int>
    var checksums: [Int: UInt32] = [:]
    var order: [Int] = []
  }

  let object = ObjectID.random()
  let geometry: ChunkGeometry
  private let memory: UnsafeMutableRawBufferPointer
  private let state: Mutex<State>

  init(size: Int, chunkSize: Int = 65_536) throws {
    geometry = try ChunkGeometry(objectSize: size, chunkSize: chunkSize)
    memory = .allocate(byteCount: size, alignment: 64)
    memory.initializeMemory(as: UInt8.self, repeating: 0xEE)
    state = Mutex(State(free: Set(0..<geometry.count)))
  }

  deinit { memory.deallocate() }

  var bytes: [UInt8] { Array(memory) }
  var checksums: [Int: UInt32] { state.withLock { $0.checksums } }
  var order: [Int] { state.withLock { $0.order } }
  var free: Set<Int> { state.withLock { $0.free } }

  /// Whether every chunk is committed with the CRC32C of its bytes.
  var isCompleteAndRight: Bool {
    (0..<geometry.count).allSatisfy { chunk in
      checksums[chunk] == crc32c(UnsafeRawBufferPointer(memory(of: chunk)))
    }
  }

  func claimChunk(from start: Int) -> Int? {
    state.withLock { state in
      let chunk = state.free.filter { $0 >= start }.min()
      if let chunk { state.free.remove(chunk) }
      return chunk
    }
  }

  func memory(of index: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: memory[geometry.range(of: index)])
  }

  func commit(_ index: Int, checksum: UInt32) {
    state.withLock {
      $0.checksums[index] = checksum
      $0.order.append(index)
    }
  }

  func abandon(_ index: Int) { state.withLock { _ = $0.free.insert(index) } }

  var chunkMap: ChunkMap {
    var map = ChunkMap(count: geometry.count)
    for chunk in checksums.keys { map.insert(chunk) }
    return map
  }
}

/// Bytes that differ from place to place, the same in every run.
func pattern(_ count: Int) -> [UInt8] {
  var state: UInt64 = 88_172_645_463_325_252
  return (0..<count).map { _ in
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return UInt8(truncatingIfNeeded: state)
  }
}
