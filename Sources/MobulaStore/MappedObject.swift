internal import MobulaCore

/// An object's bytes in this process's address space, there as long as this is alive.
///
/// Being mapped is not being pinned: unpin an object only after the last use of its bytes.
public final class MappedObject: Sendable {
  public let placement: Placement
  private let mapping: MemoryMapping

  init(_ placement: Placement, in mapping: MemoryMapping) {
    self.placement = placement
    self.mapping = mapping
  }

  /// The bytes; not to be used beyond the life of this object, which `withUnsafeBytes` takes care of.
  public var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: mapping.bytes[placement.offset..<placement.offset + placement.size])
  }

  /// The bytes for the object's maker to write until it seals them; `nil` for everyone else.
  public var writableBytes: UnsafeMutableRawBufferPointer? {
    guard placement.writable else { return nil }
    return UnsafeMutableRawBufferPointer(
      rebasing: mapping.bytes[placement.offset..<placement.offset + placement.size])
  }

  /// Calls `body` with the bytes, which are mapped until it returns.
  public func withUnsafeBytes<Result, Failure>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { withExtendedLifetime(self) {} }
    return try body(bytes)
  }

  /// Calls `body` with the bytes to write, which are mapped until it returns.
  ///
  /// - Precondition: the placement is writable.
  public func withUnsafeMutableBytes<Result, Failure>(
    _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { withExtendedLifetime(self) {} }
    guard let writableBytes else { preconditionFailure("only its maker writes an object") }
    return try body(writableBytes)
  }
}
