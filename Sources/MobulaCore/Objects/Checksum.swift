internal import CMobula

/// Copies `source` to the start of `target`, and returns the CRC32C of the bytes
/// written, continuing from `crc`. Both happen in one pass where the CPU allows.
///
/// `target` has at least `source.count` bytes, and the two do not overlap.
public func copyWithChecksum(
  _ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer, continuing crc: UInt32 = 0
) -> UInt32 {
  copyWithChecksum(source, to: target, continuing: crc, by: .folding)
}

/// How a CRC32C is computed; a CPU that lacks a way takes the one before it.
/// Only tests choose: one machine otherwise takes one way.
enum ChecksumMethod: CInt, CaseIterable {
  case table, instruction, folding
}

func copyWithChecksum(
  _ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer, continuing crc: UInt32,
  by method: ChecksumMethod
) -> UInt32 {
  precondition(source.count <= target.count, "\(source.count) bytes to \(target.count)")
  guard let from = source.baseAddress, let to = target.baseAddress else { return crc }
  return mobula_copy_crc32c_by(method.rawValue, crc, to, from, source.count)
}

func crc32c(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt32, by method: ChecksumMethod) -> UInt32 {
  guard let base = bytes.baseAddress else { return crc }
  return mobula_crc32c_by(method.rawValue, crc, base, bytes.count)
}

/// CRC-32/ISO-HDLC, the one of zlib and Ethernet, continuing from `crc`.
public func crc32(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt32 = 0) -> UInt32 {
  crc32(bytes, continuing: crc, by: .folding)
}

/// CRC-64/NVME, continuing from `crc`.
public func crc64NVME(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt64 = 0) -> UInt64 {
  crc64NVME(bytes, continuing: crc, by: .folding)
}

func crc32(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt32, by method: ChecksumMethod) -> UInt32 {
  guard let base = bytes.baseAddress else { return crc }
  return mobula_crc32_by(method.rawValue, crc, base, bytes.count)
}

func crc64NVME(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt64, by method: ChecksumMethod) -> UInt64 {
  guard let base = bytes.baseAddress else { return crc }
  return mobula_crc64nvme_by(method.rawValue, crc, base, bytes.count)
}
