internal import MobulaCore

/// Contiguous chunks of a sink that one GET fills, in order: a value that takes
/// the bytes as they come and commits each chunk with its CRC32C.
struct S3PartWriter {
  let sink: any ChunkSink
  let checks: S3DownloadChecks?
  /// Claimed and not yet complete.
  private(set) var chunks: Range<Int>
  /// Where in the object the next byte goes.
  private(set) var position: Int
  /// Whether complete chunks wait for `commitHeld`, rather than only the one that makes all bytes known.
  var holdsAll = false
  /// Complete and not yet committed.
  private(set) var held: [(chunk: Int, checksum: UInt32)] = []

  /// The CRC32C of what there is of the chunk.
  private var checksum: UInt32 = 0
  /// The stretch of the chunk that is being written, and those before it, for `checks`.
  private var running: S3RunningChecksum?
  private var runningStart: Int
  private var stretches: [S3ChecksumLedger.Stretch] = []

  /// Claims the lowest free chunk and those after it up to about `partSize` bytes; `nil` when none is free.
  init?(claimingFrom sink: any ChunkSink, partSize: Int, checks: S3DownloadChecks? = nil) {
    guard let first = sink.claimChunk(from: 0) else { return nil }
    self.sink = sink
    self.checks = checks
    chunks = first..<first + 1
    let geometry = sink.geometry
    position = geometry.range(of: first).lowerBound
    runningStart = position
    running = checks.map { S3RunningChecksum($0.algorithm) }
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
      let end = min(range.upperBound, checks?.cut(after: position) ?? .max)
      let count = min(rest.count, end - position)
      let start = position - range.lowerBound
      let place = UnsafeMutableRawBufferPointer(rebasing: sink.memory(of: chunk)[start..<start + count])
      copy(UnsafeRawBufferPointer(rebasing: rest[..<count]), to: place)
      position += count
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      if position == end { endStretch() }
      if position == range.upperBound { committed += complete(chunk) }
    }
    return committed
  }

  /// Copy and CRC32C in one pass.
  private mutating func copy(_ bytes: UnsafeRawBufferPointer, to place: UnsafeMutableRawBufferPointer) {
    if running?.algorithm == .crc32c {
      // One serves both; the chunk's is put together where stretches end.
      running?.copy(bytes, to: place)
    } else {
      checksum = copyWithChecksum(bytes, to: place, continuing: checksum)
      running?.update(bytes)
    }
  }

  private mutating func endStretch() {
    guard let checks, let running else { return }
    let length = position - runningStart
    if running.algorithm == .crc32c {
      checksum =
        runningStart == sink.geometry.range(of: chunks.lowerBound).lowerBound
        ? UInt32(running.crc)
        : UInt32(running.algorithm.combine(UInt64(checksum), running.crc, length: length)!)
    }
    if runningStart >= checks.headerSize {
      stretches.append(.init(start: runningStart - checks.headerSize, length: length, crc: running.crc))
    }
    self.running = S3RunningChecksum(running.algorithm)
    runningStart = position
  }

  private mutating func complete(_ chunk: Int) -> Int {
    chunks = chunk + 1..<chunks.upperBound
    let isLast = checks?.record(stretches) ?? false
    stretches = []
    defer { checksum = 0 }
    if holdsAll || isLast {
      held.append((chunk, checksum))
      return 0
    }
    sink.commit(chunk, checksum: checksum)
    return sink.geometry.range(of: chunk).count
  }

  /// Commits what waited for the object's checksum.
  ///
  /// - Returns: its bytes.
  mutating func commitHeld() -> Int {
    defer { held = [] }
    return held.reduce(0) { bytes, entry in
      sink.commit(entry.chunk, checksum: entry.checksum)
      return bytes + sink.geometry.range(of: entry.chunk).count
    }
  }

  /// Gives back the chunks that are not committed.
  ///
  /// - Returns: their bytes.
  @discardableResult
  mutating func abandon() -> Int {
    let open = held.map(\.chunk) + chunks
    for entry in held { checks?.forget(sink.geometry.range(of: entry.chunk)) }
    for chunk in open { sink.abandon(chunk) }
    held = []
    chunks = chunks.upperBound..<chunks.upperBound
    return open.reduce(0) { $0 + sink.geometry.range(of: $1).count }
  }
}
