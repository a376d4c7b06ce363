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
  /// Up to where pages are reserved; beyond it nobody may touch them.
  private let reservation: Reservation

  /// Makes a segment of `size` bytes (whole pages).
  ///
  /// An arena's pages are reserved here, which takes about a second for 1 GB. A large filled
  /// segment is reserved by a thread of its own, ahead of what arrives: see `waitUntilReserved`.
  ///
  /// - Throws: `MobulaError`: `full` when the system has no memory, else `inputOutput`.
  init(name: String, size: Int, kind: Kind) throws(MobulaError) {
    let isReserved = kind == .arena || size <= Reservation.step
    let descriptor = try MemoryFile.create(name: name, size: size, isReserved: isReserved)
    reservation = Reservation(reserved: isReserved ? size : 0)
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
      if !isReserved { reservation.start(size: size, descriptor: SharedDescriptor(descriptor)) }
    }
  }

  /// Blocks until the first `end` bytes may be touched.
  ///
  /// - Throws: `MobulaError` (`full`) when the system has no memory for them.
  func waitUntilReserved(_ end: Int) throws(MobulaError) { try reservation.wait(for: end) }

  /// The bytes of an object in this segment.
  func bytes(of region: Range<Int>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: mapping.bytes[region])
  }
}
