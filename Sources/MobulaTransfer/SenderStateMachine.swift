package import MobulaCore

/// The sending side of one bulk connection: which requested chunk is next, and
/// which chunks are pinned because the receiver has not acknowledged them.
///
/// Chunks are sent in the order of their requests, one at a time.
package struct SenderStateMachine: Sendable {
  package let geometry: ChunkGeometry
  /// Requests that may wait at once; a receiver that sends more is no mobula host.
  private let maximumRequests: Int
  private var queue: [Int] = []
  private var sending: Sending?
  private var unacknowledged: Set<Int> = []
  private var madeProgress = false
  private var isClosed = false

  /// The chunk whose turn it is.
  private enum Sending {
    /// Asked of the source, which may not have it yet. Can transition to: `departing`, none.
    case preparing(Int)
    /// On its way out. `acknowledged` once the receiver has it, which may be before the call
    /// that sent its last byte has returned here. Can transition to: none.
    case departing(Int, acknowledged: Bool)
  }

  package init(geometry: ChunkGeometry, maximumRequests: Int = 1024) {
    self.geometry = geometry
    self.maximumRequests = maximumRequests
  }

  /// Chunks that the receiver may still be sent bytes of: their source may not be released.
  package var pinned: Set<Int> {
    guard case .departing(let chunk, _) = sending else { return unacknowledged }
    return unacknowledged.union([chunk])
  }

  package enum RequestAction: Hashable, Sendable {
    /// Its turn has come: wait for the source to have it, then say `ready`, `waiting` or `failed`.
    case prepare(Int)
    /// Others are before it.
    case queue
  }

  /// The receiver asks for a chunk.
  ///
  /// - Throws: `protocolViolation` for a chunk that does not exist, is on its way already, or is one too many.
  package mutating func requested(_ chunk: Int) throws(MobulaError) -> RequestAction {
    guard !isClosed else { return .queue }
    guard chunk < geometry.count else {
      throw MobulaError(
        .protocolViolation, "A receiver asked for chunk \(chunk) of \(geometry.count): it is no mobula host.")
    }
    guard queue.count < maximumRequests else {
      throw MobulaError(
        .protocolViolation, "A receiver asked for more than \(maximumRequests) chunks at once: it is no mobula host.")
    }
    guard !queue.contains(chunk), !unacknowledged.contains(chunk), chunk != sendingChunk else {
      throw MobulaError(
        .protocolViolation, "A receiver asked for chunk \(chunk) again before it had it: it is no mobula host.")
    }
    guard sending == nil else {
      queue.append(chunk)
      return .queue
    }
    sending = .preparing(chunk)
    return .prepare(chunk)
  }

  /// The source has the chunk whose turn it is; `nil` once the connection is closed.
  package mutating func ready(checksum: UInt32) -> (header: ChunkHeader, range: Range<Int>)? {
    guard !isClosed else { return nil }
    guard case .preparing(let chunk) = sending else { preconditionFailure("a chunk is prepared before it is sent") }
    sending = .departing(chunk, acknowledged: false)
    let range = geometry.range(of: chunk)
    return (ChunkHeader(index: chunk, length: range.count, checksum: checksum), range)
  }

  /// The source does not have it yet: whether to tell the receiver and go on waiting.
  package func waiting() -> Bool { !isClosed }

  /// The source won't have the chunk whose turn it is, or could not be read: what to tell the receiver.
  ///
  /// `nil` when nothing can be said: the connection is closed, or stands in the middle of a chunk's bytes.
  package mutating func failed(_ error: MobulaError) -> TransferMessage? {
    guard !isClosed, case .preparing(let chunk) = sending else { return nil }
    sending = nil
    queue = []
    return .failed(chunk, error.code, error.message)
  }

  /// The kernel took the last byte of a chunk: the chunk to prepare next, if any.
  package mutating func sent() -> Int? {
    guard !isClosed else { return nil }
    guard case .departing(let chunk, let acknowledged) = sending else {
      preconditionFailure("a chunk departs before it is sent")
    }
    if !acknowledged { unacknowledged.insert(chunk) }
    madeProgress = true
    guard !queue.isEmpty else {
      sending = nil
      return nil
    }
    let next = queue.removeFirst()
    sending = .preparing(next)
    return next
  }

  /// The receiver has a chunk and found it right.
  ///
  /// - Throws: `protocolViolation` for a chunk that was never sent.
  package mutating func acknowledged(_ chunk: Int) throws(MobulaError) {
    guard !isClosed else { return }
    if case .departing(chunk, acknowledged: false) = sending {
      sending = .departing(chunk, acknowledged: true)
      return
    }
    guard unacknowledged.remove(chunk) != nil else {
      throw MobulaError(
        .protocolViolation, "A receiver acknowledged chunk \(chunk), which it was not sent: it is no mobula host.")
    }
  }

  package enum IdleAction: Hashable, Sendable { case wait, close }

  /// The idle deadline passed without a word from the receiver.
  ///
  /// A receiver that waits for us is not idle; one that owes an acknowledgement or a request is.
  package mutating func idled() -> IdleAction {
    defer { madeProgress = false }
    return sending != nil || madeProgress ? .wait : .close
  }

  /// The connection ended: nothing is sent any more. The pins stay until its socket is destroyed.
  package mutating func closed() {
    isClosed = true
    queue = []
  }

  private var sendingChunk: Int? {
    switch sending {
    case .preparing(let chunk), .departing(let chunk, _): chunk
    case nil: nil
    }
  }
}
