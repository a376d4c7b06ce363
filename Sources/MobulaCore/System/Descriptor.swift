internal import CMobula
internal import Glibc

/// A file descriptor that is closed when its owner goes.
public struct OwnedDescriptor: ~Copyable, Sendable {
  /// Its number, good as long as this value lives.
  public let rawValue: CInt

  /// Takes over `rawValue`, which nobody else may close.
  public init(owning rawValue: CInt) { self.rawValue = rawValue }

  deinit { close(rawValue) }

  /// Gives the descriptor away: the caller closes it.
  public consuming func release() -> CInt {
    let value = rawValue
    discard self
    return value
  }

  /// A second descriptor of the same open file, close-on-exec.
  ///
  /// - Throws: `MobulaError` (`inputOutput`), as when the process has no descriptors left.
  public borrowing func duplicated() throws(MobulaError) -> OwnedDescriptor {
    let raw = rawValue
    return OwnedDescriptor(
      owning: try systemCall("A descriptor can't be duplicated") { fcntl(raw, F_DUPFD_CLOEXEC, 0) })
  }
}

/// A descriptor with several owners, closed with the last of them.
public final class SharedDescriptor: Sendable {
  private let owned: OwnedDescriptor

  /// Shares a descriptor, which is closed with the last reference.
  public init(_ owned: consuming OwnedDescriptor) { self.owned = owned }

  /// Its number, good as long as this object lives.
  public var rawValue: CInt { owned.rawValue }
}

/// Anonymous shared memory with a descriptor that can be passed to another process.
public enum MemoryFile {
  /// Makes a memfd of `size` bytes that can neither shrink nor grow, whoever else gets its descriptor. No more seals
  /// can be added: one against writing would keep its memory from being given back, and others from mapping it.
  ///
  /// - Parameters:
  ///   - name: what `/proc` shows of it.
  ///   - size: its bytes, from now on.
  ///   - isReserved: whether every page is reserved now; otherwise `reserve` has to come before the first touch.
  ///     Reserving first is what turns "no memory" into an error instead of a SIGBUS.
  /// - Throws: `MobulaError`: `full` when the system has no memory for it, else `inputOutput`.
  public static func create(
    name: String, size: Int, isReserved: Bool = true
  ) throws(MobulaError) -> OwnedDescriptor {
    let raw = try systemCall("Shared memory can't be made") { mobula_memfd_create(name) }
    let descriptor = OwnedDescriptor(owning: raw)
    try systemCall("Shared memory of \(ByteCount(size)) can't be sized") { ftruncate(raw, size) }
    if isReserved { try reserve(0..<size, of: raw) }
    try systemCall("Shared memory can't be sealed") { mobula_seal(raw) }
    return descriptor
  }

  /// Reserves the pages of a part of a memfd.
  ///
  /// - Throws: `MobulaError`: `full` when the system has no memory for it, else `inputOutput`.
  public static func reserve(_ range: Range<Int>, of descriptor: CInt) throws(MobulaError) {
    let number = mobula_reserve(descriptor, Int64(range.lowerBound), Int64(range.count))
    if number == ENOSPC || number == ENOMEM {
      throw MobulaError(
        .full,
        "The system has no memory left for \(ByteCount(range.count)) more in the store: start the host with a smaller --capacity, or free some."
      )
    }
    guard number == 0 else {
      throw MobulaError.system("Shared memory of \(ByteCount(range.count)) can't be reserved", number: number)
    }
  }

  /// Gives the pages of a part of a memfd back to the system; they read as zeros from then on.
  public static func giveBack(_ range: Range<Int>, of descriptor: CInt) {
    // Can fail for want of nothing but a signal's sake; what stays reserved is given back with the file.
    _ = mobula_give_back(descriptor, Int64(range.lowerBound), Int64(range.count))
  }

  /// As `readOnly(_:)`.
  public static func readOnly(of descriptor: SharedDescriptor) throws(MobulaError) -> OwnedDescriptor {
    let raw = descriptor.rawValue
    let opened = try systemCall("Shared memory can't be opened read-only (is /proc mounted?)") {
      mobula_reopen_read_only(raw)
    }
    let result = OwnedDescriptor(owning: opened)
    try protect(descriptor)
    return result
  }

  /// Makes the file's mode 0400, so that no other user can open it again for writing through `/proc`.
  public static func protect(_ descriptor: SharedDescriptor) throws(MobulaError) {
    let raw = descriptor.rawValue
    try systemCall("Shared memory can't be made read-only") { fchmod(raw, 0o400) }
  }

  /// A read-only descriptor of the same memory. The file's mode becomes 0400,
  /// so that its holder can't open it again for writing through `/proc`.
  public static func readOnly(_ descriptor: borrowing OwnedDescriptor) throws(MobulaError) -> OwnedDescriptor {
    let raw = descriptor.rawValue
    let opened = try systemCall("Shared memory can't be opened read-only (is /proc mounted?)") {
      mobula_reopen_read_only(raw)
    }
    let result = OwnedDescriptor(owning: opened)
    try systemCall("Shared memory can't be made read-only") { fchmod(raw, 0o400) }
    return result
  }
}
