internal import MobulaCore

/// A segment's memory and descriptors, given back to the system with the last who uses them.
final class SegmentMemory: Sendable {
  enum Kind: Sendable, Hashable {
    /// A client writes it; the store only reads.
    case arena
    /// The store writes it, and nobody else ever can.
    case filled
  }

  let mapping: MemoryMapping
  /// For everyone but the maker.
  let readOnly: SharedDescriptor
  /// For the maker of an arena alone.
  let writable: SharedDescriptor?

  /// Reserves `size` bytes (whole pages). Blocks while the system finds the pages: about a second for 1 GB.
  ///
  /// - Throws: `MobulaError`: `full` when the system has no memory, else `inputOutput`.
  init(name: String, size: Int, kind: Kind) throws(MobulaError) {
    let descriptor = try MemoryFile.create(name: name, size: size)
    switch kind {
    case .arena:
      mapping = try MemoryMapping(descriptor.rawValue, count: size, access: .readOnly)
      readOnly = SharedDescriptor(try MemoryFile.readOnly(descriptor))
      writable = SharedDescriptor(descriptor)
    case .filled:
      mapping = try MemoryMapping(descriptor.rawValue, count: size, access: .readWrite)
      try MemoryFile.sealFutureWrites(descriptor)
      readOnly = SharedDescriptor(try MemoryFile.readOnly(descriptor))
      writable = nil
    }
  }

  /// The bytes of an object in this segment.
  func bytes(of region: Range<Int>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: mapping.bytes[region])
  }
}
