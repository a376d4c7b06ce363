internal import Glibc
public import MobulaCore
internal import Synchronization

/// Memory of this process alone that a download filled; unmapped with its last owner.
///
/// `@unchecked Sendable`: base and length never change, and nobody writes once the download has returned it.
public final class S3Memory: @unchecked Sendable {
  public let bytes: UnsafeRawBufferPointer
  /// Whether they were compared with a checksum of S3's.
  public var verification: S3Verification { known.withLock { $0 } }
  fileprivate let known = Mutex(S3Verification.notVerified(.noChecksum))
  fileprivate let writable: UnsafeMutableRawBufferPointer

  /// `count` zero bytes, as pages not yet touched.
  fileprivate init(count: Int) throws(MobulaError) {
    guard count > 0 else {
      writable = UnsafeMutableRawBufferPointer(start: nil, count: 0)
      bytes = UnsafeRawBufferPointer(writable)
      return
    }
    let base = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let base, base != MAP_FAILED else {
      throw MobulaError.system("\(ByteCount(count)) of memory for a download can't be mapped")
    }
    writable = UnsafeMutableRawBufferPointer(start: base, count: count)
    bytes = UnsafeRawBufferPointer(writable)
    // Most of a download's processor time was spent on first touches of 4 KiB pages. A host that has no larger ones
    // says no, and nothing is lost.
    _ = madvise(base, count, MADV_HUGEPAGE)
  }

  deinit {
    if let base = writable.baseAddress { munmap(base, writable.count) }
  }
}

extension S3Client {
  /// Downloads an object into this process's own memory, past every store.
  ///
  /// - Parameters: as `download(bucket:key:info:into:header:concurrency:partSize:progress:)` has them.
  /// - Throws: as `head` and `download` do; `inputOutput` without memory.
  public func downloadIntoMemory(
    bucket: String, key: String, concurrency: Int? = nil, partSize: ByteCount? = nil,
    progress: (@Sendable (Int) -> Void)? = nil
  ) async throws -> S3Memory {
    let info = try await head(bucket: bucket, key: key)
    let memory = try S3Memory(count: info.size)
    guard info.size > 0 else { return memory }
    let sink = S3MemorySink(memory, geometry: try ChunkGeometry(objectSize: info.size))
    let verification = try await download(
      bucket: bucket, key: key, info: info, into: sink, concurrency: concurrency, partSize: partSize,
      progress: progress)
    memory.known.withLock { $0 = verification }
    return memory
  }
}

/// Private memory in the form that downloads fill.
private final class S3MemorySink: ChunkSink {
  private struct State {
    /// Neither claimed nor verified.
    var free: [Bool]
    var verified: ChunkMap
  }

  let object = ObjectID.random()
  let geometry: ChunkGeometry
  private let memory: S3Memory
  private let state: Mutex<State>

  init(_ memory: S3Memory, geometry: ChunkGeometry) {
    self.memory = memory
    self.geometry = geometry
    state = Mutex(
      State(free: Array(repeating: true, count: geometry.count), verified: ChunkMap(count: geometry.count)))
  }

  func claimChunk(from start: Int) -> Int? {
    state.withLock { state in
      guard let chunk = state.free[start...].firstIndex(of: true) else { return nil }
      state.free[chunk] = false
      return chunk
    }
  }

  func memory(of index: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: memory.writable[geometry.range(of: index)])
  }

  func commit(_ index: Int, checksum: UInt32) { state.withLock { _ = $0.verified.insert(index) } }

  func abandon(_ index: Int) { state.withLock { $0.free[index] = true } }

  var chunkMap: ChunkMap { state.withLock { $0.verified } }
}
