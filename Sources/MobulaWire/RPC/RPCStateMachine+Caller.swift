internal import MobulaCore

/// Events of this side's own calls.
extension RPCStateMachine {
  enum StartAction: Sendable {
    /// Send the request; the waiter is kept.
    case send
    /// Nothing was kept.
    case fail(MobulaError)
  }

  /// A call begins at `now`; its waiter is resumed in any case, by `deadline` at the latest.
  mutating func call(
    _ id: UInt64, _ method: String, deadline: Duration, now: ContinuousClock.Instant, waiter: Waiter
  ) -> StartAction {
    if case .closed = state { return .fail(lost(method)) }
    guard deadline > .zero else { return .fail(deadlineExceeded(method, deadline)) }
    schedule(id, isOutgoing: true, at: now.advanced(by: deadline))
    let previous = calls.updateValue(Call(method: method, deadline: deadline, waiter: waiter), forKey: id)
    precondition(previous == nil, "call \(id) was started twice")
    return .send
  }

  /// A stream begins at `now`, with room for `window` elements; a deadline counts to its end.
  mutating func openStream(
    _ id: UInt64, _ method: String, deadline: Duration?, now: ContinuousClock.Instant
  ) -> StartAction {
    if case .closed = state { return .fail(lost(method)) }
    if let deadline {
      guard deadline > .zero else { return .fail(deadlineExceeded(method, deadline)) }
      schedule(id, isOutgoing: true, at: now.advanced(by: deadline))
    }
    let previous = streams.updateValue(ReadStream(method: method, deadline: deadline, credit: window), forKey: id)
    precondition(previous == nil, "stream \(id) was started twice")
    return .send
  }

  enum CancelAction: Sendable {
    /// It has ended already.
    case none
    /// Send the message, and resume the waiter, if there is one, with `cancelled`.
    case send(RPCMessage, Waiter?)
  }

  /// The caller no longer wants the call or stream.
  mutating func cancel(_ id: UInt64) -> CancelAction {
    if let call = calls.removeValue(forKey: id) { return .send(.cancel(id: id), call.waiter) }
    guard let stream = streams.removeValue(forKey: id), stream.ending == nil else { return .none }
    return .send(.cancel(id: id), stream.reader)
  }

  enum NextAction: Sendable {
    /// The element, and credit to send when the sender should have some.
    case deliver(Body, RPCMessage?)
    /// The waiter is kept until an element, the end or an error comes.
    case suspend
    case finish
    case fail(MobulaError)
  }

  /// A reader wants the next element.
  mutating func next(_ id: UInt64, waiter: Waiter) -> NextAction {
    guard let stream = streams[id] else { return .finish }
    if let element = stream.elements.first {
      streams[id]!.elements.removeFirst()
      return .deliver(element, take(id))
    }
    switch stream.ending {
    case .finished:
      streams[id] = nil
      return .finish
    case .failed(let error):
      streams[id] = nil
      return .fail(error)
    case nil:
      guard stream.reader == nil else {
        return .fail(
          MobulaError(.invalidArgument, "A stream has one reader at a time: read \"\(stream.method)\" in one task."))
      }
      streams[id]!.reader = waiter
      return .suspend
    }
  }

  /// Counts an element as read. Credit goes back in halves of the window, so that it costs few messages.
  private mutating func take(_ id: UInt64) -> RPCMessage? {
    streams[id]!.taken += 1
    let taken = streams[id]!.taken
    guard streams[id]!.ending == nil, taken * 2 >= window else { return nil }
    streams[id]!.taken = 0
    streams[id]!.credit += taken
    return .credit(id: id, count: UInt32(taken))
  }

  mutating func receiveResponse(_ id: UInt64, _ body: Body) -> ReceiveAction {
    if let call = calls.removeValue(forKey: id) { return .resume(call.waiter, .success(body), nil) }
    // Unknown numbers are of calls that were given up.
    guard let stream = streams[id] else { return .none }
    return .violation("\(peer) answered the stream \"\(stream.method)\" like a call.")
  }

  mutating func receiveError(_ id: UInt64, _ body: Body) -> ReceiveAction {
    guard let error = MobulaError(wire: body) else { return .violation("\(peer) sent an error that can't be read.") }
    let waiter = calls.removeValue(forKey: id)?.waiter ?? end(stream: id, .failed(error))
    return waiter.map { .resume($0, .failure(error), nil) } ?? .none
  }

  mutating func receiveElement(_ id: UInt64, _ body: Body) -> ReceiveAction {
    if let call = calls[id] { return .violation("\(peer) answered the call \"\(call.method)\" like a stream.") }
    guard let credit = streams[id]?.credit, streams[id]!.ending == nil else { return .none }
    guard credit > 0 else { return .violation("\(peer) sent more elements than it had credit for.") }
    streams[id]!.credit -= 1
    guard let reader = streams[id]!.reader else {
      streams[id]!.elements.append(body)
      return .none
    }
    streams[id]!.reader = nil
    return .resume(reader, .success(body), take(id))
  }

  mutating func receiveEnd(_ id: UInt64) -> ReceiveAction {
    if let call = calls[id] { return .violation("\(peer) answered the call \"\(call.method)\" like a stream.") }
    return end(stream: id, .finished).map { .resume($0, .success(nil), nil) } ?? .none
  }
}
