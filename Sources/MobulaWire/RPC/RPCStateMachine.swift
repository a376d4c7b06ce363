internal import MobulaCore

/// The calls and streams of one connection, both ways, as a value without I/O, lock or clock.
///
/// `Waiter` is whatever waits in the shell (a continuation): a caller for its
/// response, a reader for an element, a writer for credit. `Handler` is what
/// runs a peer's request (a task). Each event returns what the shell must do.
/// Numbers of outgoing calls are the shell's to choose, each used once.
struct RPCStateMachine<Waiter: Sendable, Handler: Sendable>: Sendable {
  typealias Body = RPCMessage.Body

  /// A call of this side that waits for its response.
  struct Call: Sendable {
    var method: String
    var deadline: Duration
    var waiter: Waiter
  }

  /// The receiving end of a stream: it never holds more elements than were asked for.
  struct ReadStream: Sendable {
    enum Ending: Sendable {
      case finished
      case failed(MobulaError)
    }
    var method: String
    var deadline: Duration?
    var elements: [Body] = []
    /// Elements that the peer may still send.
    var credit: Int
    /// Elements taken by the reader that no credit was sent for yet.
    var taken = 0
    var reader: Waiter?
    /// Set when no more come; those in `elements` are still read.
    var ending: Ending?
  }

  /// A call or stream of the peer's, whose handler runs here.
  struct Incoming: Sendable {
    /// `nil` until the shell has started it.
    var handler: Handler?
    var isStream: Bool
    /// Elements that may be sent now.
    var credit: Int
    var writers: [(ticket: UInt64, waiter: Waiter)] = []
  }

  enum State: Sendable {
    /// Can transition to: closed.
    case open
    /// Nothing is sent or started any more; streams are read to the end of what has come.
    case closed(MobulaError)
  }

  /// As errors call the other side.
  let peer: String
  /// Elements that a stream's sender may be ahead of its reader.
  let window: Int
  var state = State.open
  var calls: [UInt64: Call] = [:]
  var streams: [UInt64: ReadStream] = [:]
  var incoming: [UInt64: Incoming] = [:]
  var deadlines = DeadlineQueue()

  init(peer: String, window: Int) {
    precondition(window > 0, "a stream needs room for an element")
    self.peer = peer
    self.window = window
  }

  /// When `expire` is to be called next.
  var nextDeadline: ContinuousClock.Instant? { deadlines.earliest }

  mutating func schedule(_ id: UInt64, isOutgoing: Bool, at instant: ContinuousClock.Instant) {
    if deadlines.count > 64, deadlines.count > 2 * (calls.count + streams.count + incoming.count) {
      deadlines.compact {
        $0.isOutgoing ? calls[$0.id] != nil || streams[$0.id] != nil : incoming[$0.id] != nil
      }
    }
    deadlines.insert(.init(instant: instant, id: id, isOutgoing: isOutgoing))
  }

  struct Expiry: Sendable {
    /// Callers and readers, to be resumed with these errors.
    var failed: [(waiter: Waiter, error: MobulaError)] = []
    /// Handlers to cancel: their callers have given up by now.
    var handlers: [Handler] = []
    /// Writers of those handlers, to be resumed with `cancelled`.
    var writers: [Waiter] = []
    var messages: [RPCMessage] = []
  }

  /// Ends everything whose deadline is not after `now`.
  mutating func expire(now: ContinuousClock.Instant) -> Expiry {
    var expiry = Expiry()
    while let entry = deadlines.popFirst(until: now) {
      if !entry.isOutgoing {
        guard let call = incoming.removeValue(forKey: entry.id) else { continue }
        if let handler = call.handler { expiry.handlers.append(handler) }
        expiry.writers += call.writers.map(\.waiter)
      } else if let call = calls.removeValue(forKey: entry.id) {
        expiry.failed.append((call.waiter, deadlineExceeded(call.method, call.deadline)))
        expiry.messages.append(.cancel(id: entry.id))
      } else if let stream = streams[entry.id], stream.ending == nil {
        let error = deadlineExceeded(stream.method, stream.deadline ?? .zero)
        if let reader = end(stream: entry.id, .failed(error)) { expiry.failed.append((reader, error)) }
        expiry.messages.append(.cancel(id: entry.id))
      }
    }
    return expiry
  }

  struct Closing: Sendable {
    /// Callers, readers and writers, to be resumed with these errors.
    var failed: [(waiter: Waiter, error: MobulaError)] = []
    var handlers: [Handler] = []
  }

  /// Ends everything; `nil` when it was closed before. `reason` says why, and all the errors have its code.
  mutating func close(_ reason: MobulaError) -> Closing? {
    guard case .open = state else { return nil }
    state = .closed(reason)
    var closing = Closing()
    for call in calls.values {
      var error = lost(call.method)
      error.mayHaveRun = true
      closing.failed.append((call.waiter, error))
    }
    calls = [:]
    for (id, stream) in streams {
      let error = lost(stream.method)
      if let reader = end(stream: id, .failed(error)) { closing.failed.append((reader, error)) }
    }
    for call in incoming.values {
      if let handler = call.handler { closing.handlers.append(handler) }
      closing.failed += call.writers.map { ($0.waiter, unread) }
    }
    incoming = [:]
    deadlines = DeadlineQueue()
    return closing
  }

  /// Ends a stream; what it holds is still read. Returns a reader that waits, to be told of the end.
  mutating func end(stream id: UInt64, _ ending: ReadStream.Ending) -> Waiter? {
    guard let reader = streams[id]?.reader else {
      if streams[id]?.ending == nil { streams[id]?.ending = ending }
      return nil
    }
    streams[id] = nil
    return reader
  }
}
