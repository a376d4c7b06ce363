/// Writes an object of known size to memory, from its first byte to its last,
/// and computes the CRC32C of each chunk on the way.
///
/// The calls block for as long as the copy takes. From 8 MiB a call, two threads share the work.
///
/// `@unchecked Sendable`: the writer has one owner, and by its initializer's
/// contract nobody else touches the memory while it exists. The threads of a
/// call write different chunks, and are done with them when the call returns.
package struct ChecksummingWriter: ~Copyable, @unchecked Sendable {
  /// The chunks that the checksums are of.
  package let geometry: ChunkGeometry
  /// Bytes written so far, all at the start of the object.
  package private(set) var written = 0

  private let memory: UnsafeMutableRawBufferPointer
  private let threads: Int
  /// The CRC32C of what is written of each chunk.
  private var checksums: [UInt32]

  /// From this many bytes, another thread's help is worth the 20 µs or so that it takes to start it.
  static let sharedSize = 8_388_608

  /// - Parameters:
  ///   - memory: The object's place, of at least `geometry.objectSize` bytes. It outlives the
  ///     writer, and nobody else writes or relies on those bytes until `finish()`.
  ///   - geometry: The object's size and chunks.
  ///   - threads: The most threads that copy at a time, the caller's included; by default two,
  ///     or one on a machine with one CPU.
  package init(_ memory: UnsafeMutableRawBufferPointer, geometry: ChunkGeometry, threads: Int? = nil) {
    precondition(
      memory.count >= geometry.objectSize, "an object of \(geometry.objectSize) bytes in \(memory.count)")
    let threads = threads ?? min(2, processorCount)
    precondition(threads >= 1, "\(threads) threads")
    self.memory = memory
    self.geometry = geometry
    self.threads = threads
    checksums = Array(repeating: 0, count: geometry.count)
  }

  /// Bytes still to be written.
  package var remaining: Int { geometry.objectSize - written }

  /// Writes `bytes`, at most `remaining`, which are not part of the object's own memory.
  package mutating func append(_ bytes: UnsafeRawBufferPointer) {
    write(bytes.count, .bytes(bytes))
  }

  /// Writes `count` zeros, at most `remaining`.
  package mutating func appendZeros(_ count: Int) {
    write(count, .zeros)
  }

  /// Lets `body` write all of the next `count` bytes, at most `remaining`, and then reads them for their checksums.
  ///
  /// Pieces of some 100 KiB are best: they still are in a cache when they are read.
  /// - Throws: What `body` throws. Then none of the bytes count as written.
  package mutating func fill<Failure: Error>(
    _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Void
  ) throws(Failure) {
    check(count)
    try body(UnsafeMutableRawBufferPointer(rebasing: memory[written..<written + count]))
    write(count, .inPlace)
  }

  /// The CRC32C of each chunk, once all bytes are written.
  package consuming func finish() -> [UInt32] {
    precondition(remaining == 0, "\(remaining) of \(geometry.objectSize) bytes are not written")
    return checksums
  }

  private enum Input {
    case bytes(UnsafeRawBufferPointer)
    case zeros
    case inPlace
  }

  private func check(_ count: Int) {
    precondition(count >= 0 && count <= remaining, "\(count) bytes where \(remaining) remain")
  }

  private mutating func write(_ count: Int, _ input: Input) {
    check(count)
    if count == 0 { return }
    let range = written..<written + count
    let first = range.lowerBound / geometry.chunkSize
    let last = (range.upperBound - 1) / geometry.chunkSize
    checksums.withUnsafeMutableBufferPointer { [geometry, memory] checksums in
      // Each piece has its own chunk, bytes and checksum, and no piece is worked on after `run` returns.
      nonisolated(unsafe) let (memory, checksums, input) = (memory, checksums, input)
      SharedPieces.run(last - first + 1, threads: count >= Self.sharedSize ? threads : 1) { index in
        let piece = geometry.range(of: first + index).clamped(to: range)
        checksums[first + index] = Self.write(
          input, from: piece.lowerBound - range.lowerBound,
          to: UnsafeMutableRawBufferPointer(rebasing: memory[piece]), continuing: checksums[first + index])
      }
    }
    written += count
  }

  /// Writes one chunk's part of `input`, from `offset` of it, and returns the chunk's new CRC32C.
  private static func write(
    _ input: Input, from offset: Int, to target: UnsafeMutableRawBufferPointer, continuing crc: UInt32
  ) -> UInt32 {
    switch input {
    case .bytes(let bytes):
      let part = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + target.count])
      return copyWithChecksum(part, to: target, continuing: crc)
    case .zeros:
      return zero(target, continuing: crc)
    case .inPlace:
      return crc32c(UnsafeRawBufferPointer(target), continuing: crc)
    }
  }

  private static func zero(_ target: UnsafeMutableRawBufferPointer, continuing crc: UInt32) -> UInt32 {
    var crc = crc
    var start = 0
    // In blocks that still are in the cache when they are read.
    while start < target.count {
      let block = UnsafeMutableRawBufferPointer(rebasing: target[start..<min(start + 65_536, target.count)])
      block.initializeMemory(as: UInt8.self, repeating: 0)
      crc = crc32c(UnsafeRawBufferPointer(block), continuing: crc)
      start += block.count
    }
    return crc
  }
}
