import MobulaCore
import Synchronization

extension CodingUserInfoKey {
  static let valueWriter = CodingUserInfoKey(rawValue: "mobula.valueWriter")!
  static let valueReader = CodingUserInfoKey(rawValue: "mobula.valueReader")!
}

/// Gathers what a value has beside its CBOR while it is encoded: big buffers and references.
final class ValueWriter: Sendable {
  private struct State {
    var blobs: [Blob] = []
    var references: [AnyReference] = []
  }

  /// Whether buffers go into the CBOR itself: in calls, which have no place beside it.
  let placesBlobsInline: Bool
  private let state = Mutex(State())

  init(placesBlobsInline: Bool = false) { self.placesBlobsInline = placesBlobsInline }

  /// The index under which the header names this buffer.
  func add(_ blob: Blob) -> Int {
    state.withLock {
      $0.blobs.append(blob)
      return $0.blobs.count - 1
    }
  }

  /// Every reference inside a value is reported, so that it can be held on its way.
  func add(_ reference: AnyReference) {
    state.withLock { $0.references.append(reference) }
  }

  var blobs: [Blob] { state.withLock { $0.blobs } }
  var references: [AnyReference] { state.withLock { $0.references } }
}

/// What a value needs while it is decoded: its pinned object's buffers, and the cluster for its references.
final class ValueReader: Sendable {
  let cluster: Cluster
  private let pin: PinnedObject?
  private let layout: ValueLayout?
  private let found = Mutex<[AnyReference]>([])

  /// - Parameter pin: the object that the value lies in; `nil` for arguments, which have no buffers.
  init(cluster: Cluster, pin: PinnedObject? = nil, layout: ValueLayout? = nil) {
    self.cluster = cluster
    self.pin = pin
    self.layout = layout
  }

  /// Whether buffers lie beside the header, in the object.
  var hasBuffers: Bool { pin != nil }

  func buffer(_ index: Int) throws -> any BlobStorage {
    guard let pin, let layout, layout.buffers.indices.contains(index) else {
      throw MobulaError(.corrupted, "The value names a buffer \(index) that its object does not have.")
    }
    return PinnedStorage(pin, range: layout.buffers[index])
  }

  func add(_ reference: AnyReference) { found.withLock { $0.append(reference) } }

  /// The references that were decoded; their holds are to be registered before the sender lets go.
  var references: [AnyReference] { found.withLock { $0 } }
}

/// A value as it will lie in an object.
struct EncodedValue {
  var header: [UInt8]
  var blobs: [Blob]
  var references: [AnyReference]
  var layout: ValueLayout

  init(_ value: some Encodable, isError: Bool = false) throws {
    let writer = ValueWriter()
    var encoder = CBOREncoder()
    encoder.userInfo[.valueWriter] = writer
    header = try encoder.encode(value)
    blobs = writer.blobs
    references = writer.references
    layout = ValueLayout(headerSize: header.count, bufferSizes: blobs.map(\.count), isError: isError)
  }

  /// Writes the object's bytes; `memory` has `layout.size` of them.
  func write(to memory: UnsafeMutableRawBufferPointer) {
    memory.copyBytes(from: layout.prefix(header: header))
    var end = layout.buffers.first?.lowerBound ?? layout.size
    for (blob, range) in zip(blobs, layout.buffers) {
      // The gap before a buffer: memory is recycled, and old bytes are nobody's business.
      UnsafeMutableRawBufferPointer(rebasing: memory[end..<range.lowerBound]).initializeMemory(
        as: UInt8.self, repeating: 0)
      blob.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: memory[range]).copyMemory(from: $0) }
      end = range.upperBound
    }
  }
}
