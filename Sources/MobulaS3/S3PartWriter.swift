internal import MobulaCore

/// Contiguous chunks of a sink that one GET fills, in order: a value that takes
/// the bytes as they come and commits each chunk with its CRC32C.
struct S3PartWriter {
  let sink: any ChunkSink
  /// Claimed and not yet committed.
  private(set) var chunks: Range<Int>
  /// Where in the object the next byte goes.
  private(set) var position: Int
  private var checksum: UInt32 = 0

  /// Claims the lowest free chunk and those after it up to about `partSize` bytes; `nil` when none is free.
  init?(claimingFrom sink: any ChunkSink, partSize: Int) {
    guard let first = sink.claimChunk(from: 0) else { return nil }
    self.sink = sink
    chunks = first..<first + 1
    let geometry = sink.geometry
    position = geometry.range(of: first).lowerBound
    while chunks.upperBound < geometry.count,
      geometry.range(of: chunks.upperBound).upperBound - position <= partSize
    {
      guard let next = sink.claimChunk(from: chunks.upperBound) else { break }
      guard next == chunks.upperBound else {
        // Somebody else has the chunk between; this one is found again when its turn comes.
        sink.abandon(next)
        break
      }
      chunks = first..<next + 1
    }
  }

  /// The bytes of the object that are still to come.
  var missing: Range<Int> {
    chunks.isEmpty ? position..<position : position..<sink.geometry.range(of: chunks.upperBound - 1).upperBound
  }

  /// Copies the next bytes to their place; the one copy between the socket's buffer and the object's memory.
  ///
  /// - Returns: how many bytes were made visible by commits.
  /// - Precondition: `bytes` has at most `missing.count` bytes.
  mutating func write(_ bytes: UnsafeRawBufferPointer) -> Int {
    precondition(bytes.count <= missing.count, "more bytes than the part has room for")
    var rest = bytes
    var committed = 0
    while !rest.isEmpty {
      let chunk = chunks.lowerBound
      let range = sink.geometry.range(of: chunk)
      let count = min(rest.count, range.upperBound - position)
      let start = position - range.lowerBound
      let place = UnsafeMutableRawBufferPointer(rebasing: sink.memory(of: chunk)[start..<start + count])
      place.copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<count]))
      // Over the bytes where they lie, while they are in the processor's cache.
      checksum = crc32c(UnsafeRawBufferPointer(place), continuing: checksum)
      position += count
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      if position == range.upperBound {
        chunks = chunk + 1..<chunks.upperBound
        sink.commit(chunk, checksum: checksum)
        checksum = 0
        committed += range.count
      }
    }
    return committed
  }

  /// Gives back the chunks that are not complete.
  mutating func abandon() {
    for chunk in chunks { sink.abandon(chunk) }
    chunks = chunks.upperBound..<chunks.upperBound
  }
}
