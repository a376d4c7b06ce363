/// A replica to take chunks from, complete or still arriving.
///
/// The store implements it, the transfer sends from it. As long as a
/// `ChunkSource` is alive, its object is pinned: its bytes stay where they are.
public protocol ChunkSource: AnyObject, Sendable {
  var object: ObjectID { get }
  var geometry: ChunkGeometry { get }
  /// A descriptor to `sendfile` from, valid as long as the source is alive.
  var descriptor: CInt { get }
  /// Where the object's first byte lies in `descriptor`.
  var offset: Int { get }
  /// Blocks the calling thread until chunk `index` is verified, and returns its CRC32C.
  ///
  /// - Throws: `MobulaError`: `deadlineExceeded`, or `notFound` once the replica was given up.
  func waitForChunk(_ index: Int, until deadline: ContinuousClock.Instant) throws(MobulaError) -> UInt32
  /// The digest, once every chunk is verified.
  var digest: ObjectDigest? { get }
}

/// A replica to fill, chunk by chunk, from a host or from S3.
///
/// A writer claims a chunk before it writes, so that no two write the same bytes;
/// `commit` makes it visible to readers and to hosts further down.
public protocol ChunkSink: AnyObject, Sendable {
  var object: ObjectID { get }
  var geometry: ChunkGeometry { get }
  /// Claims the lowest chunk at or after `start` that is neither verified nor claimed.
  func claimChunk(from start: Int) -> Int?
  /// The memory of a chunk; only who claimed it may write there, and only until `commit` or `abandon`.
  func memory(of index: Int) -> UnsafeMutableRawBufferPointer
  /// The bytes of `index` are all there, and their CRC32C is `checksum`.
  func commit(_ index: Int, checksum: UInt32)
  /// Gives a claimed chunk back unwritten, for another source to fill.
  func abandon(_ index: Int)
  /// What is verified now.
  var chunkMap: ChunkMap { get }
}
