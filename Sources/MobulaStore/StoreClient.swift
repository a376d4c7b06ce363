internal import CMobula
internal import Glibc
internal import MobulaCore
internal import Synchronization

/// A process's view of its host's store: maps the segments that placements name.
///
/// A segment is mapped once, however many of its objects are in use, and
/// unmapped with the last of them.
public final class StoreClient: Sendable {
  private struct Key: Hashable {
    let segment: SegmentID
    let writable: Bool
  }

  private struct WeakMapping {
    weak var mapping: MemoryMapping?
  }

  private let path: String
  private let mappings = Mutex<[Key: WeakMapping]>([:])

  /// - Parameter path: the store's descriptor socket.
  public init(descriptorSocket path: String) { self.path = path }

  /// Maps an object. Blocks for some 100 µs when its segment is not mapped yet, at most for 10 s.
  ///
  /// - Throws: `MobulaError`: `denied` when the ticket was used before or is too old (ask the store
  ///   again); `unavailable` when no store answers; `notFound` without a ticket; `protocolViolation`.
  public func map(_ placement: Placement) throws -> MappedObject {
    guard placement.size > 0, placement.offset >= 0, placement.size <= placement.segmentSize,
      placement.offset <= placement.segmentSize - placement.size
    else {
      throw MobulaError(
        .protocolViolation,
        "The store placed \(placement.size) bytes at \(placement.offset) of a segment of \(placement.segmentSize): stop the host and report this."
      )
    }
    if let mapping = cached(placement), mapping.bytes.count >= placement.segmentSize {
      return MappedObject(placement, in: mapping)
    }
    guard let ticket = placement.ticket else {
      throw MobulaError(
        .notFound,
        "Segment \(placement.segment) is not mapped any more, and the placement has no ticket: ask the store again.")
    }
    let descriptor = try fetch(ticket)
    try checkSize(of: descriptor, placement)
    let mapping = try MemoryMapping(
      descriptor.rawValue, count: placement.segmentSize, access: placement.writable ? .readWrite : .readOnly)
    return MappedObject(placement, in: remember(mapping, for: placement))
  }

  /// A mapping that will do: a reader is served by a writable one as well.
  private func cached(_ placement: Placement) -> MemoryMapping? {
    mappings.withLock { mappings in
      let writable = mappings[Key(segment: placement.segment, writable: true)]?.mapping
      if placement.writable { return writable }
      return mappings[Key(segment: placement.segment, writable: false)]?.mapping ?? writable
    }
  }

  /// Keeps `mapping` in mind unless another thread was faster, whose mapping is then the one to use.
  private func remember(_ mapping: MemoryMapping, for placement: Placement) -> MemoryMapping {
    let key = Key(segment: placement.segment, writable: placement.writable)
    return mappings.withLock { mappings in
      if let other = mappings[key]?.mapping { return other }
      for (key, weak) in mappings where weak.mapping == nil { mappings[key] = nil }
      mappings[key] = WeakMapping(mapping: mapping)
      return mapping
    }
  }

  /// Redeems `ticket` at the store.
  func fetch(_ ticket: DescriptorTicket) throws(MobulaError) -> OwnedDescriptor {
    try UnixSocket.check(path)
    let socket = try UnixSocket.make()
    try UnixSocket.setTimeout(DescriptorProtocol.patience, on: socket)
    let failure = UnixSocket.connect(socket, to: path)
    guard failure == 0 else {
      throw MobulaError(
        .unavailable,
        "No store answers at \(path) (\(errnoText(failure))): start `mobula host`, and share its folder with this process."
      )
    }
    let raw = socket.rawValue
    let request = DescriptorProtocol.request(ticket)
    try systemCall("The store at \(path) can't be asked") {
      send(raw, request, request.count, CInt(MSG_NOSIGNAL))
    }
    var answer: UInt8 = 0
    var descriptor: CInt = -1
    let count = try systemCall("The store at \(path) does not answer") {
      mobula_receive_descriptor(raw, &descriptor, &answer, 1)
    }
    if descriptor >= 0, count == 1, answer == DescriptorProtocol.Answer.granted.rawValue {
      return OwnedDescriptor(owning: descriptor)
    }
    if descriptor >= 0 { close(descriptor) }
    switch (count, DescriptorProtocol.Answer(rawValue: answer)) {
    case (1, .refused):
      throw MobulaError(
        .denied, "The store refused the ticket, which was used before or is too old: ask for the object again.")
    case (1, .malformed):
      throw MobulaError(
        .mismatch, "The store at \(path) speaks another version: use the same mobula on both sides.")
    case (1, _):
      throw MobulaError(.protocolViolation, "The store at \(path) answered \(answer) without a descriptor.")
    default:
      throw MobulaError(
        .connectionClosed, "The store at \(path) closed the connection: try again, or start its host again.")
    }
  }

  /// A segment that is smaller than promised would end in a SIGBUS later.
  private func checkSize(of descriptor: borrowing OwnedDescriptor, _ placement: Placement) throws(MobulaError) {
    var status = stat()
    let raw = descriptor.rawValue
    try systemCall("Segment \(placement.segment) can't be examined") { fstat(raw, &status) }
    guard status.st_size >= placement.segmentSize else {
      throw MobulaError(
        .protocolViolation,
        "Segment \(placement.segment) has \(status.st_size) bytes, not \(placement.segmentSize): stop the host and report this."
      )
    }
  }
}
