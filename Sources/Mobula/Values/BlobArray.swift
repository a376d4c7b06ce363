public import MobulaCore

/// An immutable array of numbers, or other elements of plain bits, used in place.
///
/// Inside a value it lies out of band like a `Blob`, on a 64-byte boundary of the shared memory; a
/// decoded one is a view of it. Elements lie there as they do in memory, padding included, so that
/// whoever decodes them has to be of the same build, as all programs of a job are.
///
/// `@unchecked Sendable`: nobody writes the memory that `elements` points to, and `blob` keeps it.
public struct BlobArray<Element: BitwiseCopyable & Sendable>: @unchecked Sendable {
  /// The bytes of all elements.
  public let blob: Blob
  @usableFromInline
  let elements: UnsafeBufferPointer<Element>

  /// An array in this process's own memory; putting it copies it once.
  public init(_ elements: [Element]) {
    let blob = elements.withUnsafeBytes { bytes in
      Blob(size: bytes.count, alignment: Swift.max(64, MemoryLayout<Element>.alignment)) { $0.copyMemory(from: bytes) }
    }
    self.init(unchecked: blob)
  }

  /// An array in this process's own memory; putting it copies it once.
  public init(_ elements: some Sequence<Element>) { self.init(Array(elements)) }

  /// A view of a blob.
  ///
  /// - Throws: `MobulaError` (`mismatch`) when the blob is no whole number of elements, or when its first
  ///   byte is not where an element may be.
  public init(_ blob: Blob) throws(MobulaError) {
    try blob.checkElements(Element.self)
    self.init(unchecked: blob)
  }

  /// A view of a blob that was checked.
  private init(unchecked blob: Blob) {
    self.blob = blob
    elements = blob.unsafeBytes.assumingMemoryBound(to: Element.self)
  }

  /// The elements in place.
  @inlinable
  public var span: Span<Element> {
    @_lifetime(borrow self)
    get { _overrideLifetime(Span(_unsafeElements: elements), borrowing: self) }
  }

  /// Calls `body` with the elements, which must not be used after it returns.
  @inlinable
  public func withUnsafeBufferPointer<Result>(
    _ body: (UnsafeBufferPointer<Element>) throws -> Result
  ) rethrows -> Result {
    try withExtendedLifetime(blob) { try body(elements) }
  }
}

extension BlobArray: RandomAccessCollection {
  @inlinable
  public var startIndex: Int { 0 }

  @inlinable
  public var endIndex: Int { elements.count }

  @inlinable
  public subscript(position: Int) -> Element {
    // Release builds check no bounds of a buffer pointer.
    precondition(position >= 0 && position < elements.count, "index out of range")
    return withExtendedLifetime(blob) { elements[position] }
  }

  @inlinable
  public func withContiguousStorageIfAvailable<Result>(
    _ body: (UnsafeBufferPointer<Element>) throws -> Result
  ) rethrows -> Result? {
    try withUnsafeBufferPointer(body)
  }
}

extension BlobArray: Equatable where Element: Equatable {
  public static func == (a: BlobArray, b: BlobArray) -> Bool { a.elementsEqual(b) }
}

extension BlobArray: Hashable where Element: Hashable {
  public func hash(into hasher: inout Hasher) {
    hasher.combine(count)
    for element in self { hasher.combine(element) }
  }
}

extension BlobArray: CustomStringConvertible {
  public var description: String { "\(count) of \(Element.self)" }
}

extension BlobArray: Codable {
  private enum CodingKeys: CodingKey { case element, stride, blob }

  /// What another build of the element's type, or another type, is told from it by.
  private static var elementName: String { _mangledTypeName(Element.self) ?? "\(Element.self)" }

  /// - Throws: `DecodingError.typeMismatch` when the elements that were encoded are of another type.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let name = try container.decode(String.self, forKey: .element)
    let stride = try container.decode(Int.self, forKey: .stride)
    guard name == Self.elementName, stride == MemoryLayout<Element>.stride else {
      let other = _typeByName(name).map { "\($0)" } ?? readableName(ofType: name)
      throw DecodingError.typeMismatch(
        Self.self,
        DecodingError.Context(
          codingPath: container.codingPath,
          debugDescription:
            "There are elements of type \(other) (\(stride) bytes each) where \(Element.self) (\(MemoryLayout<Element>.stride) bytes each) was expected."
        ))
    }
    try self.init(container.decode(Blob.self, forKey: .blob))
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(Self.elementName, forKey: .element)
    try container.encode(MemoryLayout<Element>.stride, forKey: .stride)
    try container.encode(blob, forKey: .blob)
  }
}
