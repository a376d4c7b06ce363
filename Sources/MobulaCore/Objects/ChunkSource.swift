/// A replica to take chunks from, complete or still arriving.
///
/// The store implements it, the transfer sends from it. As long as a
/// `ChunkSource` is alive, its object is pinned: its bytes stay where they are.
package protocol ChunkSource: AnyObject, Sendable {
  /// The object that the chunks are of.
  var object: ObjectID { get }
  /// How it is divided into chunks.
  var geometry: ChunkGeometry { get }
  /// A descriptor to `sendfile` from, valid as long as the source is alive.
  var descriptor: CInt { get }
  /// Where the object's first byte lies in `descriptor`.
  var offset: Int { get }
  /// Whether this host has the bytes from elsewhere than another host: it made them, or reads them from S3.
  /// Then it may be the only one that has them.
  var isOrigin: Bool { get }
  /// What is verified now, and may be sent.
  var chunkMap: ChunkMap { get }
  /// Of an origin, the chunks that it has from other hosts all the same, so that these have them, too.
  var foreignChunks: ChunkMap? { get }
  /// The CRC32C of a verified chunk.
  func checksum(of index: Int) -> UInt32
  /// Why the missing chunks won't come, once the replica was given up.
  var failure: MobulaError? { get }
  /// Calls `body` whenever chunks were verified or the replica was given up, on the thread that did it: be brief.
  ///
  /// - Returns: to be kept for as long as `body` shall be called.
  func observe(_ body: @escaping @Sendable () -> Void) -> any AnyObject & Sendable
  /// The digest, once every chunk is verified.
  var digest: ObjectDigest? { get }
}

/// A replica to fill, chunk by chunk, from a host or from S3.
///
/// A writer claims a chunk before it writes, so that no two write the same bytes;
/// `commit` makes it visible to readers and to hosts further down.
package protocol ChunkSink: AnyObject, Sendable {
  /// The object that the chunks are of.
  var object: ObjectID { get }
  /// How it is divided into chunks.
  var geometry: ChunkGeometry { get }
  /// Claims the lowest chunk at or after `start` that is neither verified nor claimed.
  func claimChunk(from start: Int) -> Int?
  /// Claims this chunk; may block until there is memory for it. False when it is verified or claimed, or the replica
  /// was given up.
  func claim(_ index: Int) -> Bool
  /// The memory of a chunk; only who claimed it may write there, and only until `commit` or `abandon`.
  func memory(of index: Int) -> UnsafeMutableRawBufferPointer
  /// The bytes of `index` are all there, and their CRC32C is `checksum`.
  func commit(_ index: Int, checksum: UInt32)
  /// As `commit`; `isOwn` says that the bytes come from elsewhere than another host, so that no other may have them.
  func commit(_ index: Int, checksum: UInt32, isOwn: Bool)
  /// Gives a claimed chunk back unwritten, for another source to fill.
  func abandon(_ index: Int)
  /// What is verified now.
  var chunkMap: ChunkMap { get }
  /// - Throws: the error that the replica was given up with: no chunk can be claimed any more.
  func checkNotAbandoned() throws(MobulaError)
}

extension ChunkSource {
  package var foreignChunks: ChunkMap? { nil }
}

extension ChunkSink {
  package func checkNotAbandoned() {}

  package func commit(_ index: Int, checksum: UInt32, isOwn: Bool) { commit(index, checksum: checksum) }

  package func claim(_ index: Int) -> Bool {
    guard let claimed = claimChunk(from: index) else { return false }
    if claimed != index { abandon(claimed) }
    return claimed == index
  }
}
