internal import MobulaCore

/// The CRC32C of every chunk of an object that begins at `offset` of `memory`.
///
/// Blocks nobody else: anything but a small object is read on threads of its
/// own, a big one by two of them, which is as fast as memory gives it.
func chunkChecksums(
  in memory: SegmentMemory, at offset: Int, geometry: ChunkGeometry
) async throws -> [UInt32] {
  @Sendable func checksums(_ chunks: Range<Int>) -> [UInt32] {
    chunks.map { index in
      let range = geometry.range(of: index)
      return crc32c(memory.bytes(of: offset + range.lowerBound..<offset + range.upperBound))
    }
  }
  let count = geometry.count
  // 256 KiB take about 20 µs, less than to start a thread and wait for it.
  if geometry.objectSize <= 262_144 { return checksums(0..<count) }
  if geometry.objectSize < 8_388_608 {
    return try await onThread(named: "seal") { checksums(0..<count) }
  }
  async let front = onThread(named: "seal 1") { checksums(0..<count / 2) }
  async let back = onThread(named: "seal 2") { checksums(count / 2..<count) }
  return try await front + back
}
