import MobulaCore
import MobulaStore
import MobulaWire

/// Writes a `Blob` of a size known ahead straight into shared memory, piece by piece.
///
/// Nothing is kept of a writer that goes without `finish`.
public struct BlobWriter: ~Copyable, Sendable {
  private let draft: ObjectDraft
  private var writer: ChecksummingWriter
  private let reference: AnyReference

  init(_ draft: consuming ObjectDraft, reference: AnyReference) {
    writer = draft.writer()
    self.draft = draft
    self.reference = reference
  }

  /// Bytes that are still to be written.
  public var remaining: Int { writer.remaining }

  /// Appends bytes, by two threads when there are many.
  ///
  /// - Precondition: no more than `remaining`.
  public mutating func append(_ bytes: UnsafeRawBufferPointer) { writer.append(bytes) }

  /// Appends bytes, at most `remaining`.
  public mutating func append(_ bytes: RawSpan) { bytes.withUnsafeBytes { writer.append($0) } }

  /// Lets `body` write the next `count` bytes itself, all of them.
  public mutating func fill<Failure: Error>(
    _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Void
  ) throws(Failure) {
    try writer.fill(count, body)
  }

  /// Makes the blob known.
  ///
  /// - Precondition: `remaining` is 0.
  /// - Throws: `MobulaError` (`unavailable`) when the host's store takes no objects.
  public consuming func finish() throws -> ObjectRef<Blob> {
    precondition(writer.remaining == 0, "\(writer.remaining) bytes of the blob were not written")
    let reference = reference
    let checksums = writer.finish()
    try draft.seal(checksums: checksums, holds: true)
    return ObjectRef(reference)
  }
}

extension Cluster {
  /// Memory of this host's store for a `Blob` of `size` bytes.
  ///
  /// ```swift
  /// var writer = try await cluster.blobWriter(size: file.size)
  /// while writer.remaining > 0 { try writer.fill(min(1 << 20, writer.remaining)) { try file.read(into: $0) } }
  /// let model = try writer.finish()
  /// ```
  ///
  /// - Throws: `MobulaError` (`full`) when the store has no room within a while.
  public func blobWriter(size: Int) async throws -> BlobWriter {
    guard size >= 0 else {
      throw MobulaError(.invalidArgument, "A blob of \(size) bytes can't be: give its size, 0 or more.")
    }
    let (layout, prefix) = ValueLayout.blob(size: size)
    let object = ObjectID.random(job: job)
    let reference = newReference(to: object)
    let client = store.client
    let box = try await onThread(named: "draft") { Box(try client.draft(object, size: layout.size)) }
    var writer = BlobWriter(box.take(), reference: reference)
    prefix.withUnsafeBytes { writer.append($0) }
    return writer
  }
}

/// Takes something that can't be copied out of a closure.
///
/// `@unchecked Sendable`: filled by one thread, which is done with it before another empties it.
private final class Box: @unchecked Sendable {
  private var draft: ObjectDraft?

  init(_ draft: consuming ObjectDraft) { self.draft = consume draft }

  func take() -> ObjectDraft { draft.take()! }
}
