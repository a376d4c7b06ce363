import MobulaCore
import MobulaStore

/// Immutable bytes of any size, used in place.
///
/// Inside a value a `Blob` lies out of band on a 64-byte boundary of the shared
/// memory; a decoded one is a view of it and keeps the object pinned as long as
/// it lives. Nothing is copied, however large it is.
public struct Blob: Sendable {
  let storage: any BlobStorage

  /// A blob of this process's own memory; putting it copies it once.
  public init(_ bytes: [UInt8]) { storage = ArrayStorage(bytes) }

  /// A blob of memory that `owner` keeps where it is and nobody writes any more; putting it copies it once.
  public init(bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
    storage = OwnedStorage(bytes: bytes, owner: owner)
  }

  init(storage: any BlobStorage) { self.storage = storage }

  /// Bytes.
  public var count: Int { storage.bytes.count }

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
final class ArrayStorage: BlobStorage, @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer

  init(_ array: [UInt8]) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(array.count, 1), alignment: 64)
    copy.copyBytes(from: array)
    bytes = UnsafeRawBufferPointer(rebasing: copy[..<array.count])
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

/// A part of a pinned object.
///
/// `@unchecked Sendable`: the bytes of a sealed object never change, and `pin` keeps them mapped.
final class PinnedStorage: BlobStorage, @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer
  private let pin: PinnedObject

  init(_ pin: PinnedObject, range: Range<Int>) {
    bytes = UnsafeRawBufferPointer(rebasing: pin.bytes[range])
    self.pin = pin
  }
}

extension Blob: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let context = decoder.userInfo[.valueReader] as? ValueReader, context.hasBuffers {
      storage = try context.buffer(container.decode(Int.self))
    } else {
      storage = ArrayStorage(try container.decode(ByteString.self).bytes)
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
    a.withUnsafeBytes { a in b.withUnsafeBytes { b in a.elementsEqual(b) } }
  }
}
