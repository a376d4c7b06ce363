import Distributed
import MobulaCore
import Synchronization

extension CodingUserInfoKey {
  static let valueWriter = CodingUserInfoKey(rawValue: "mobula.valueWriter")!
  static let valueReader = CodingUserInfoKey(rawValue: "mobula.valueReader")!
  static let storedValue = CodingUserInfoKey(rawValue: "mobula.storedValue")!
}

/// Gathers what a value has beside its CBOR while it is encoded: big buffers and references.
final class ValueWriter: CBORBufferSink {
  private struct State {
    var buffers: [any ValueBuffer] = []
    var references: [AnyReference] = []
  }

  /// Whether buffers go into the CBOR itself: in calls, which have no place beside it.
  let placesBlobsInline: Bool
  private let state = Mutex(State())

  init(placesBlobsInline: Bool = false) { self.placesBlobsInline = placesBlobsInline }

  /// The index under which the header names this buffer.
  func add(_ blob: Blob) -> Int { append(blob) }

  func add<Element: BitwiseCopyable & Sendable>(_ array: [Element]) -> Int? {
    let buffer = ArrayBuffer(array: array)
    return state.withLock {
      guard $0.buffers.count < ValueLayout.maximumBuffers else { return nil }
      $0.buffers.append(buffer)
      return $0.buffers.count - 1
    }
  }

  private func append(_ buffer: any ValueBuffer) -> Int {
    state.withLock {
      $0.buffers.append(buffer)
      return $0.buffers.count - 1
    }
  }

  /// Every reference inside a value is reported, so that it can be held on its way.
  func add(_ reference: AnyReference) {
    state.withLock { $0.references.append(reference) }
  }

  var buffers: [any ValueBuffer] { state.withLock { $0.buffers } }
  var references: [AnyReference] { state.withLock { $0.references } }
}

/// Bytes that a value has out of band.
protocol ValueBuffer: Sendable {
  var count: Int { get }
  func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result
}

extension Blob: ValueBuffer {}

/// An array of numbers, kept as it is until it is copied into its object.
struct ArrayBuffer<Element: BitwiseCopyable & Sendable>: ValueBuffer {
  let array: [Element]

  var count: Int { array.count * MemoryLayout<Element>.stride }

  func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try array.withUnsafeBytes(body)
  }
}

/// What a value's references need while it is decoded: the cluster that they are of.
final class ValueReader: Sendable {
  let cluster: Cluster
  /// That to the object which is read, if it is one.
  let container: AnyReference?
  private let found = Mutex<[AnyReference]>([])

  init(cluster: Cluster, container: AnyReference? = nil) {
    self.cluster = cluster
    self.container = container
  }

  func add(_ reference: AnyReference) { found.withLock { $0.append(reference) } }

  /// The references that were decoded from what is no object; their holds are to be registered before the sender lets go.
  var references: [AnyReference] { found.withLock { $0 } }
}

/// A value as it will lie in an object.
struct EncodedValue {
  var header: [UInt8]
  var buffers: [any ValueBuffer] = []
  var references: [AnyReference] = []
  var layout: ValueLayout

  init<Value: Encodable>(_ value: Value, isError: Bool = false) throws {
    if CBORReader.isScalar(Value.self) {
      header = try CBOREncoder().encode(value)
    } else if Value.self == Blob.self, let blob = value as? Blob {
      header = [0]
      buffers = [blob]
    } else {
      let writer = ValueWriter()
      var encoder = CBOREncoder()
      encoder.userInfo = [.valueWriter: writer]
      encoder.buffers = writer
      header = try encoder.encode(value)
      buffers = writer.buffers
      references = writer.references
    }
    guard header.count <= UInt32.max, buffers.count <= ValueLayout.maximumBuffers else {
      throw MobulaError(
        .invalidArgument,
        "A \(Value.self) has \(ByteCount(header.count)) beside its \(buffers.count) buffers, which is too much for one object: put parts of it as objects of their own."
      )
    }
    layout = ValueLayout(headerSize: header.count, bufferSizes: buffers.map(\.count), isError: isError)
  }

  /// Writes the object's bytes; `memory` has `layout.size` of them.
  func write(to memory: UnsafeMutableRawBufferPointer) {
    layout.writePrefix(header: header, into: memory)
    var end = layout.prefixSize
    for (buffer, range) in zip(buffers, layout.buffers) {
      // The gap before a buffer: memory is recycled, and old bytes are nobody's business.
      UnsafeMutableRawBufferPointer(rebasing: memory[end..<range.lowerBound]).initializeMemory(
        as: UInt8.self, repeating: 0)
      buffer.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: memory[range]).copyMemory(from: $0) }
      end = range.upperBound
    }
  }

  /// A part of an object.
  enum Piece {
    /// Bytes that are valid only while they are being passed on.
    case bytes(UnsafeRawBufferPointer)
    case zeros(Int)
  }

  /// Passes the object's bytes on in order, `layout.size` in all, for a writer that looks at what it copies.
  func forEachPiece(_ body: (Piece) throws -> Void) rethrows {
    try withUnsafeTemporaryAllocation(byteCount: layout.header.lowerBound, alignment: 8) { table in
      layout.writeTable(into: table)
      try body(.bytes(UnsafeRawBufferPointer(table)))
    }
    try header.withUnsafeBytes { try body(.bytes($0)) }
    var end = layout.header.upperBound
    for (buffer, range) in zip(buffers, layout.buffers) {
      if end < range.lowerBound { try body(.zeros(range.lowerBound - end)) }
      if !range.isEmpty { try buffer.withUnsafeBytes { try body(.bytes($0)) } }
      end = range.upperBound
    }
  }
}
