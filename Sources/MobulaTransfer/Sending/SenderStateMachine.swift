package import MobulaCore

/// The sending side of one bulk connection: what the receiver is told, which requested chunk is
/// next, and which chunks are pinned because the receiver has not acknowledged them.
///
/// Only chunks that the receiver was told of may be requested; they are sent in the order of their requests.
package struct SenderStateMachine: Sendable {
  package let geometry: ChunkGeometry
  /// Requests that may wait at once; a receiver that sends more is no mobula host.
  private let maximumRequests: Int
  private var told: ChunkMap
  private var queue: [Int] = []
  private var sending: Sending?
  private var unacknowledged: Set<Int> = []
  /// Cancelled when they were on their way already.
  private var cancelledTooLate: Set<Int> = []
  private var madeProgress = false
  private var isClosed = false

  /// The chunk that is on its way out. `acknowledged` once the receiver has it, which may be before the call
  /// that sent its last byte has returned here.
  private struct Sending {
    var chunk: Int
    var isAcknowledged = false
  }

  package init(geometry: ChunkGeometry, maximumRequests: Int = 1024) {
    self.geometry = geometry
    self.maximumRequests = maximumRequests
    told = ChunkMap(count: geometry.count)
  }

  /// Chunks that the receiver may still be sent bytes of: their source may not be released.
  package var pinned: Set<Int> { sending.map { unacknowledged.union([$0.chunk]) } ?? unacknowledged }

  /// The receiver is told of these.
  package mutating func tell(_ ranges: [Range<Int>]) {
    for range in ranges { for chunk in range { told.insert(chunk) } }
  }

  /// The receiver asks for a chunk.
  ///
  /// - Throws: `protocolViolation` for a chunk that it was not told of, that is on its way already, or is one too many.
  package mutating func requested(_ chunk: Int) throws(MobulaError) {
    guard !isClosed else { return }
    guard chunk < geometry.count, told.contains(chunk) else {
      throw MobulaError(
        .protocolViolation,
        "A receiver asked for chunk \(chunk) of \(geometry.count), which it was not offered: it is no mobula host.")
    }
    guard queue.count < maximumRequests else {
      throw MobulaError(
        .protocolViolation, "A receiver asked for more than \(maximumRequests) chunks at once: it is no mobula host.")
    }
    // Wanted after all: what is on its way is what is asked for.
    if cancelledTooLate.remove(chunk) != nil { return }
    guard !queue.contains(chunk), !unacknowledged.contains(chunk), chunk != sending?.chunk else {
      throw MobulaError(
        .protocolViolation, "A receiver asked for chunk \(chunk) again before it had it: it is no mobula host.")
    }
    queue.append(chunk)
    madeProgress = true
  }

  /// The receiver gets the chunk from elsewhere. Too late for one that is on its way.
  package mutating func cancelled(_ chunk: Int) {
    queue.removeAll { $0 == chunk }
    if chunk == sending?.chunk && sending?.isAcknowledged == false || unacknowledged.contains(chunk) {
      cancelledTooLate.insert(chunk)
    }
  }

  /// Whether a chunk is to be sent.
  package var hasRequest: Bool { !isClosed && sending == nil && !queue.isEmpty }

  /// Bytes left, or had to wait here: what the receiver does not say meanwhile is not its fault.
  package mutating func progressed() { madeProgress = true }

  /// The chunk to send now, with the bytes of the object that it is; `nil` when there is none, or one is on its way.
  package mutating func next() -> (chunk: Int, range: Range<Int>)? {
    guard !isClosed, sending == nil, !queue.isEmpty else { return nil }
    let chunk = queue.removeFirst()
    sending = Sending(chunk: chunk)
    return (chunk, geometry.range(of: chunk))
  }

  /// The kernel took the last byte of the chunk.
  package mutating func sent() {
    guard let sent = sending else { preconditionFailure("a chunk departs before it is sent") }
    if !sent.isAcknowledged { unacknowledged.insert(sent.chunk) }
    sending = nil
    madeProgress = true
  }

  /// The receiver has a chunk and found it right; perhaps from elsewhere.
  ///
  /// - Throws: `protocolViolation` for a chunk that it was not told of.
  package mutating func acknowledged(_ chunk: Int) throws(MobulaError) {
    guard !isClosed else { return }
    guard chunk < geometry.count, told.contains(chunk) else {
      throw MobulaError(
        .protocolViolation, "A receiver acknowledged chunk \(chunk), which it was not offered: it is no mobula host.")
    }
    madeProgress = true
    cancelledTooLate.remove(chunk)
    if sending?.chunk == chunk { return sending!.isAcknowledged = true }
    if unacknowledged.remove(chunk) == nil { queue.removeAll { $0 == chunk } }
  }

  package enum IdleAction: Hashable, Sendable { case wait, close }

  /// The idle deadline passed without a word from the receiver.
  ///
  /// One that has all it asked for may wait for what we don't have yet; one that owes an acknowledgement, or takes
  /// no byte of what it asked for, is gone.
  package mutating func idled() -> IdleAction {
    defer { madeProgress = false }
    return madeProgress || pinned.isEmpty && queue.isEmpty ? .wait : .close
  }

  /// The connection ended: nothing is sent any more. The pins stay until its socket is destroyed.
  package mutating func closed() {
    isClosed = true
    queue = []
  }
}
