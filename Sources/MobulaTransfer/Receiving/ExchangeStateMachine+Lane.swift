internal import MobulaCore

extension ExchangeStateMachine {
  /// A connection to one source, as far as it matters to what is asked of whom.
  struct Lane: Sendable {
    let id: LaneID
    let host: HostID
    var isOpen = false
    /// The source wants to hear of every chunk of its that is here.
    var wantsNews = false
    var offered: ChunkMap
    /// In the order of asking.
    var requested: [Int] = []
    /// Cancelled, but on their way all the same, for all that is known.
    var revoked: Set<Int> = []
    var arriving: Int?
    /// Arrives too late, and is thrown away.
    var discarding: Int?
    /// Bytes a second, averaged; `nil` before the first chunk.
    var rate: Double?
    /// What its fastest chunks did lately, in bytes a second.
    var best = 0.0
    /// When the last chunk came, or the lane was asked after it had nothing to do.
    var since = Duration.zero
    /// Told to close.
    var isClosing = false
    /// Closes once what it was asked for has come.
    var isRetiring = false
  }
}
