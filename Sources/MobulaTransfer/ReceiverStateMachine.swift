package import MobulaCore

/// The receiving side of one bulk connection: how many chunks to ask for, which
/// are on their way, and what may be committed.
package struct ReceiverStateMachine: Sendable {
  private enum State {
    /// Asked for the object. Can transition to: `receiving`, `ended`.
    case opening
    /// Chunks are claimed, requested and arrive. Can transition to: `ended`.
    case receiving
    /// Finished, or the connection is gone.
    case ended
  }

  /// What to do next.
  package enum Step: Hashable, Sendable {
    /// Claim a chunk of the sink and say `claimed`.
    case claim
    /// Take in the sender's next message.
    case receive
    /// Every chunk is verified or claimed by someone else, and none is on its way here.
    case finish
  }

  private let geometry: ChunkGeometry
  private let window: Int
  private var state = State.opening
  /// Claimed and requested, in that order; the sender answers in the same order.
  private var requested: [Int] = []
  private var arriving: ChunkHeader?

  /// - Parameter window: chunks requested at once, at least one.
  package init(geometry: ChunkGeometry, window: Int) {
    precondition(window > 0, "a window holds at least one chunk")
    self.geometry = geometry
    self.window = window
  }

  /// Eight chunks, or 4 MiB where that is more: so much is requested ahead that
  /// a link of 1 Gbit/s with a round trip of 30 ms never runs dry.
  package static func window(for geometry: ChunkGeometry) -> Int {
    max(8, 4_194_304 / geometry.chunkSize)
  }

  /// The sender has the object.
  ///
  /// - Throws: `mismatch` when it has it in another shape; `protocolViolation` when nobody asked.
  package mutating func opened(objectSize: Int, chunkSize: Int) throws(MobulaError) -> Step {
    guard case .opening = state else { throw Self.unexpected("an opened object") }
    guard objectSize == geometry.objectSize, chunkSize == geometry.chunkSize else {
      throw MobulaError(
        .mismatch,
        "The source has the object as \(objectSize) bytes in chunks of \(chunkSize), not \(geometry.objectSize) in chunks of \(geometry.chunkSize): fetch it from another source."
      )
    }
    state = .receiving
    return .claim
  }

  package enum ClaimAction: Hashable, Sendable {
    /// Ask the sender for the chunk.
    case request(Int, then: Step)
    /// Nothing is to be had right now.
    case proceed(Step)
  }

  /// The sink gave a chunk, or had none to give.
  package mutating func claimed(_ chunk: Int?) -> ClaimAction {
    guard case .receiving = state, requested.count < window else {
      preconditionFailure("a chunk is claimed when the machine asks for it")
    }
    guard let chunk else {
      if requested.isEmpty {
        state = .ended
        return .proceed(.finish)
      }
      return .proceed(.receive)
    }
    requested.append(chunk)
    return .request(chunk, then: requested.count < window ? .claim : .receive)
  }

  /// A chunk's header came: the part of the object that the next bytes are.
  ///
  /// - Throws: `protocolViolation` for a chunk that is not the next one requested, or not of its size.
  package mutating func announced(_ header: ChunkHeader) throws(MobulaError) -> Range<Int> {
    guard case .receiving = state, arriving == nil else { throw Self.unexpected("a chunk") }
    guard let next = requested.first, header.index == next else {
      throw Self.unexpected("chunk \(header.index)")
    }
    let range = geometry.range(of: next)
    guard header.length == range.count else {
      throw MobulaError(
        .protocolViolation,
        "The source sent chunk \(next) with \(header.length) bytes instead of \(range.count): fetch from another source."
      )
    }
    arriving = header
    return range
  }

  package enum ArrivalAction: Hashable, Sendable {
    /// Right: commit it with its checksum, and acknowledge it.
    case commit(Int, checksum: UInt32, then: Step)
    /// Wrong: leave this source, whose other chunks can't be trusted either.
    case reject(Int)
  }

  /// All bytes of the announced chunk are here and have this CRC32C.
  package mutating func arrived(checksum: UInt32) -> ArrivalAction {
    guard let header = arriving else { preconditionFailure("a chunk is announced before it arrives") }
    arriving = nil
    guard checksum == header.checksum else { return .reject(header.index) }
    requested.removeFirst()
    return .commit(header.index, checksum: checksum, then: .claim)
  }

  /// The sender is alive but has not got the next chunk itself.
  ///
  /// - Throws: `protocolViolation` when it owes nothing.
  package func waiting() throws(MobulaError) -> Step {
    guard case .receiving = state, !requested.isEmpty else { throw Self.unexpected("a sign of life") }
    return .receive
  }

  /// The transfer is over, for whatever reason: the chunks to abandon.
  package mutating func ended() -> [Int] {
    state = .ended
    defer { requested = [] }
    return requested
  }

  private static func unexpected(_ what: String) -> MobulaError {
    MobulaError(
      .protocolViolation, "The source sent \(what) that it was not asked for: run the same version on all hosts.")
  }
}
