internal import MobulaCore

/// A segment's mapping and descriptors, given back to the system with the last who uses them.
///
/// A segment is sparse: its pages are reserved before anybody may touch them, and given back by holes.
/// It is not sealed against writing: `F_SEAL_FUTURE_WRITE` would refuse the holes, and the mapping of a
/// store that is started again. What readers get can't be opened for writing by another user.
final class SegmentMemory: Sendable {
  let id: SegmentID
  let mapping: MemoryMapping
  /// For its maker, for this store, and for the one that comes after it. The only one that is kept: the
  /// segments of processes that have ended may be many.
  let writable: SharedDescriptor

  /// A new segment of `size` addresses, without memory.
  ///
  /// - Parameter isOwn: whether the store fills it.
  /// - Throws: `MobulaError` (`inputOutput`).
  convenience init(_ id: SegmentID, size: Int, isOwn: Bool) throws(MobulaError) {
    let descriptor = try MemoryFile.create(name: "mobula-segment", size: size, isReserved: false)
    try self.init(id, SharedDescriptor(descriptor), size: size, isOwn: isOwn)
  }

  /// A segment that is there.
  init(_ id: SegmentID, _ descriptor: SharedDescriptor, size: Int, isOwn: Bool) throws(MobulaError) {
    self.id = id
    writable = descriptor
    mapping = try MemoryMapping(descriptor.rawValue, count: size, access: isOwn ? .readWrite : .readOnly)
    mapping.adviseHugePages()
    try MemoryFile.protect(descriptor)
  }

  /// A descriptor for everyone else.
  ///
  /// - Throws: `MobulaError` (`inputOutput`), as when this process has no descriptors left.
  func readOnly() throws(MobulaError) -> SharedDescriptor {
    SharedDescriptor(try MemoryFile.readOnly(of: writable))
  }

  var size: Int { mapping.bytes.count }

  /// Reserves the pages of a range, about a second a gigabyte.
  ///
  /// - Throws: `MobulaError` (`full`) when the system has no memory.
  func reserve(_ range: Range<Int>) throws(MobulaError) { try MemoryFile.reserve(range, of: writable.rawValue) }

  func giveBack(_ range: Range<Int>) { MemoryFile.giveBack(range, of: writable.rawValue) }

  /// The bytes of an object in this segment.
  func bytes(of region: Range<Int>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: mapping.bytes[region])
  }

  func writableBytes(of region: Range<Int>) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: mapping.bytes[region])
  }
}
