import Glibc
public import MobulaCore

/// Immutable bytes of any size, used in place.
///
/// Inside a value a `Blob` lies out of band on a 64-byte boundary of the shared
/// memory; a decoded one is a view of it and keeps the object pinned as long as
/// it lives. Nothing is copied, however large it is. A big array of numbers, which lies out of
/// band as well, can be decoded as the `Blob` of its bytes.
public struct Blob: Sendable {
  let storage: any BlobStorage

  /// A blob of this process's own memory; putting it copies it once.
  public init(_ bytes: [UInt8]) { self.init(size: bytes.count) { $0.copyBytes(from: bytes) } }

  /// A blob of memory that `owner` keeps where it is and nobody writes any more; putting it copies it once.
  public init(bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
    storage = OwnedStorage(bytes: bytes, owner: owner)
  }

  init(storage: any BlobStorage) { self.storage = storage }

  /// A blob of memory of our own, that `body` fills.
  init(size: Int, alignment: Int = 64, filledBy body: (UnsafeMutableRawBufferPointer) -> Void) {
    storage = OwnStorage(size: size, alignment: alignment, filledBy: body)
  }

  /// Bytes.
  public var count: Int { storage.bytes.count }

  /// The bytes in place.
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get { _overrideLifetime(RawSpan(_unsafeBytes: unsafeBytes), borrowing: self) }
  }

  /// The bytes in place, as numbers or other elements of plain bits, in this machine's own form.
  ///
  /// Stops the program where `checkElements(_:)` throws.
  @_lifetime(borrow self)
  public func span<Element: BitwiseCopyable>(of type: Element.Type) -> Span<Element> {
    if let problem = elementProblem(type) { preconditionFailure(problem) }
    return _overrideLifetime(Span(_unsafeBytes: unsafeBytes), borrowing: self)
  }

  /// Checks that the bytes can be used as elements of this type: that there is a whole number of
  /// them, and that the first is where such an element may be.
  ///
  /// - Throws: `MobulaError` (`mismatch`).
  public func checkElements<Element: BitwiseCopyable>(_ type: Element.Type) throws(MobulaError) {
    if let problem = elementProblem(type) { throw MobulaError(.mismatch, problem) }
  }

  private func elementProblem<Element: BitwiseCopyable>(_ type: Element.Type) -> String? {
    let stride = MemoryLayout<Element>.stride
    let alignment = MemoryLayout<Element>.alignment
    if count % stride != 0 {
      return "A blob of \(count) bytes is no whole number of \(type) (\(stride) bytes each): use another type."
    }
    if UInt(bitPattern: unsafeBytes.baseAddress) % UInt(alignment) != 0 {
      return "A blob's first byte is not on a boundary of \(alignment) bytes, as \(type) needs: copy it into an array."
    }
    return nil
  }

  /// Calls `body` with the bytes, which must not be used after it returns.
  @inlinable
  public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try withExtendedLifetime(self) { try body(unsafeBytes) }
  }

  /// The bytes; valid as long as this blob, or a copy of it, lives.
  @usableFromInline
  var unsafeBytes: UnsafeRawBufferPointer { storage.bytes }
}

/// Memory that stays where it is as long as the storage lives.
protocol BlobStorage: AnyObject, Sendable {
  var bytes: UnsafeRawBufferPointer { get }
}

/// Bytes of this process's own.
///
/// `@unchecked Sendable`: written once in `init`, read-only from then on.
final class OwnStorage: BlobStorage, @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer

  init(size: Int, alignment: Int, filledBy body: (UnsafeMutableRawBufferPointer) -> Void) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(size, 1), alignment: alignment)
    let used = UnsafeMutableRawBufferPointer(rebasing: memory[..<size])
    body(used)
    bytes = UnsafeRawBufferPointer(used)
  }

  deinit { UnsafeMutableRawBufferPointer(mutating: bytes).baseAddress?.deallocate() }
}

/// Bytes of somebody else's.
///
/// `@unchecked Sendable`: whoever made the blob promised that nobody writes them.
final class OwnedStorage: BlobStorage, @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer
  private let owner: any AnyObject & Sendable

  init(bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
    self.bytes = bytes
    self.owner = owner
  }
}

/// A part of an object.
///
/// `@unchecked Sendable`: the bytes of a sealed object never change, and `object` keeps them mapped.
final class ObjectStorage: BlobStorage, @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer
  private let object: any ObjectMemory

  init(_ object: any ObjectMemory, range: Range<Int>) {
    bytes = UnsafeRawBufferPointer(rebasing: object.bytes[range])
    self.object = object
  }
}

extension Blob: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let stored = decoder.userInfo[.storedValue] as? StoredValue {
      self = try stored.blob(container.decode(Int.self))
    } else {
      self.init(try container.decode(ByteString.self).bytes)
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    if let context = encoder.userInfo[.valueWriter] as? ValueWriter, !context.placesBlobsInline {
      try container.encode(context.add(self))
    } else {
      try container.encode(ByteString(withUnsafeBytes { Array($0) }))
    }
  }
}

extension Blob: Equatable {
  public static func == (a: Blob, b: Blob) -> Bool {
    a.withUnsafeBytes { a in
      b.withUnsafeBytes { b in
        guard a.count == b.count else { return false }
        guard let here = a.baseAddress, let there = b.baseAddress else { return true }
        return memcmp(here, there, a.count) == 0
      }
    }
  }
}
