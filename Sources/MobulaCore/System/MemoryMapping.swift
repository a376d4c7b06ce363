internal import Glibc

/// A shared mapping of a file, unmapped with its last owner.
///
/// `@unchecked Sendable`: base and length never change. Who may write which
/// bytes at what time is decided by the store, chunk by chunk, not by this class.
public final class MemoryMapping: @unchecked Sendable {
  /// What may be done with the memory.
  public enum Access: Sendable {
    /// To write it ends the process.
    case readOnly
    /// All that the descriptor allows.
    case readWrite
  }

  /// The memory, good as long as this object lives.
  public let bytes: UnsafeMutableRawBufferPointer
  /// What may be done with it.
  public let access: Access

  /// Maps `count` bytes (more than zero) of `descriptor` from its start.
  ///
  /// - Throws: `MobulaError` (`inputOutput`), as when a read-only descriptor is to be mapped writable.
  public init(_ descriptor: CInt, count: Int, access: Access) throws(MobulaError) {
    precondition(count > 0, "a mapping has at least one byte")
    let protection = access == .readOnly ? PROT_READ : PROT_READ | PROT_WRITE
    let base = mmap(nil, count, protection, MAP_SHARED, descriptor, 0)
    guard let base, base != MAP_FAILED else {
      throw MobulaError.system("\(ByteCount(count)) of shared memory can't be mapped")
    }
    self.bytes = UnsafeMutableRawBufferPointer(start: base, count: count)
    self.access = access
  }

  deinit { munmap(bytes.baseAddress, bytes.count) }
}

extension MemoryMapping {
  /// Asks for huge pages, which the system may or may not give.
  public func adviseHugePages() { madvise(bytes.baseAddress, bytes.count, CInt(MADV_HUGEPAGE)) }
}
