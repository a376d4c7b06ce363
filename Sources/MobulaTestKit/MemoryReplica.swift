public import MobulaCore
internal import Synchronization

/// A replica in shared memory of its own, to send from and to fill without a store.
public final class MemoryReplica: ChunkSource, ChunkSink {
  public let object: ObjectID
  public let geometry: ChunkGeometry
  public let offset: Int
  private let file: SharedDescriptor
  private let mapping: MemoryMapping
  public let isOrigin: Bool
  private let observers = ObserverList()
  private let state: Mutex<State>

  private struct State {
    var map: ChunkMap
    var claimed: Set<Int> = []
    var checksums: [UInt32]
    var failure: MobulaError?
    var commits = 0
  }

  /// An empty replica, to be filled.
  ///
  /// - Parameters:
  ///   - offset: where in its memory the object begins.
  ///   - isOrigin: whether no other host need have it.
  public init(
    object: ObjectID, geometry: ChunkGeometry, offset: Int = 0, isOrigin: Bool = false
  ) throws(MobulaError) {
    self.isOrigin = isOrigin
    self.object = object
    self.geometry = geometry
    self.offset = offset
    let descriptor = try MemoryFile.create(name: "replica", size: offset + geometry.objectSize)
    mapping = try MemoryMapping(descriptor.rawValue, count: offset + geometry.objectSize, access: .readWrite)
    file = SharedDescriptor(descriptor)
    state = Mutex(
      State(map: ChunkMap(count: geometry.count), checksums: Array(repeating: 0, count: geometry.count)))
  }

  /// A complete replica of bytes that follow from `seed`.
  public convenience init(
    object: ObjectID, geometry: ChunkGeometry, offset: Int = 0, seed: UInt64
  ) throws(MobulaError) {
    try self.init(object: object, geometry: geometry, offset: offset, isOrigin: true)
    for index in 0..<geometry.count { fill(index, seed: seed) }
  }

  public var descriptor: CInt { file.rawValue }

  /// The object's bytes.
  public var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: mapping.bytes[offset...])
  }

  /// Claims, writes and commits one chunk of the bytes that follow from `seed`.
  public func fill(_ index: Int, seed: UInt64) {
    var generator = SeededGenerator(seed: seed &+ UInt64(index) << 32)
    let memory = memory(of: index)
    var position = 0
    while position < memory.count {
      withUnsafeBytes(of: generator.next().littleEndian) { word in
        let count = min(8, memory.count - position)
        memory[position..<position + count].copyBytes(from: word.prefix(count))
        position += count
      }
    }
    commit(index, checksum: crc32c(UnsafeRawBufferPointer(memory)))
  }

  /// Gives the replica up: who waits for a chunk gets the error.
  public func fail(_ error: MobulaError) { change { $0.failure = error } }

  /// How often a chunk was committed, to see that none was twice.
  public var commits: Int { state.withLock { $0.commits } }
  public var chunkMap: ChunkMap { state.withLock { $0.map } }
  /// Chunks claimed and neither committed nor abandoned.
  public var claimedChunks: Set<Int> { state.withLock { $0.claimed } }

  public var digest: ObjectDigest? {
    state.withLock { state in
      state.map.isComplete ? ObjectDigest(geometry: geometry, checksums: state.checksums) : nil
    }
  }

  public func checksum(of index: Int) -> UInt32 { state.withLock { $0.checksums[index] } }
  public var failure: MobulaError? { state.withLock { $0.failure } }

  public func observe(_ body: @escaping @Sendable () -> Void) -> any AnyObject & Sendable { observers.add(body) }

  package func checkNotAbandoned() throws(MobulaError) { if let failure { throw failure } }

  public func claim(_ index: Int) -> Bool {
    state.withLock { $0.failure == nil && !$0.map.contains(index) && $0.claimed.insert(index).inserted }
  }

  public func claimChunk(from start: Int) -> Int? {
    state.withLock { state in
      var next = state.map.firstMissing(from: start)
      while let index = next, state.claimed.contains(index) { next = state.map.firstMissing(from: index + 1) }
      if let next { state.claimed.insert(next) }
      return next
    }
  }

  public func memory(of index: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: bytes[geometry.range(of: index)])
  }

  public func commit(_ index: Int, checksum: UInt32) {
    change { state in
      state.claimed.remove(index)
      state.map.insert(index)
      state.checksums[index] = checksum
      state.commits += 1
    }
  }

  public func abandon(_ index: Int) {
    state.withLock { state in _ = state.claimed.remove(index) }
  }

  private func change(_ body: (inout State) -> Void) {
    state.withLock { body(&$0) }
    observers.notify()
  }
}
