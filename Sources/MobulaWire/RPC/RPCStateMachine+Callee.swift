internal import MobulaCore

/// Events of the peer's calls, and of everything that it sends.
extension RPCStateMachine {
  enum ReceiveAction: Sendable {
    case none
    /// Resume a caller or reader (`nil` is a stream's end), and send the message if there is one.
    case resume(Waiter, Result<Body?, MobulaError>, RPCMessage?)
    /// These writers may send one element each.
    case grant([Waiter])
    /// Start a handler and `attach` it.
    case start(RPCRequest)
    /// Tell a handler, at once.
    case tell(method: String, Body)
    /// Cancel the handler, and resume its writers with `cancelled`.
    case cancel(Handler?, [Waiter])
    case send(RPCMessage)
    /// Say goodbye with this error, and close.
    case refuse(MobulaError)
    /// The peer closed, for this reason.
    case closed(MobulaError)

    static func violation(_ what: String) -> Self { .refuse(MobulaError(.protocolViolation, what)) }
  }

  /// A message came at `now`.
  mutating func receive(_ message: RPCMessage, now: ContinuousClock.Instant) -> ReceiveAction {
    if case .closed = state { return .none }
    switch message {
    case .request(let id, let method, let milliseconds, let body):
      let request = RPCRequest(id: id, method: method, body: body, isStream: false)
      return receiveRequest(request, credit: 0, milliseconds: milliseconds, now: now)
    case .notice(let method, let body): return .tell(method: method, body)
    case .openStream(let id, let method, let milliseconds, let credit, let body):
      guard 1...UInt32(Int32.max) ~= credit else { return .violation("\(peer) opened a stream without room.") }
      let request = RPCRequest(id: id, method: method, body: body, isStream: true)
      return receiveRequest(request, credit: Int(credit), milliseconds: milliseconds, now: now)
    case .response(let id, let body): return receiveResponse(id, body)
    case .error(let id, let body): return receiveError(id, body)
    case .cancel(let id):
      guard let call = incoming.removeValue(forKey: id) else { return .none }
      return .cancel(call.handler, call.writers.map(\.waiter))
    case .element(let id, let body): return receiveElement(id, body)
    case .end(let id): return receiveEnd(id)
    case .credit(let id, let count): return receiveCredit(id, Int(count))
    case .ping: return .send(.pong)
    case .pong: return .none
    case .goodbye(let body):
      guard let error = MobulaError(wire: body) else {
        return .closed(MobulaError(.connectionClosed, "It was closed by the other side."))
      }
      return .closed(MobulaError(.connectionClosed, error.message))
    }
  }

  private mutating func receiveRequest(
    _ request: RPCRequest, credit: Int, milliseconds: UInt32, now: ContinuousClock.Instant
  ) -> ReceiveAction {
    guard incoming[request.id] == nil else { return .violation("\(peer) used the number of a call twice.") }
    incoming[request.id] = Incoming(isStream: request.isStream, credit: credit)
    if milliseconds > 0 {
      schedule(request.id, isOutgoing: false, at: now.advanced(by: .milliseconds(milliseconds)))
    }
    return .start(request)
  }

  private mutating func receiveCredit(_ id: UInt64, _ count: Int) -> ReceiveAction {
    guard var call = incoming[id] else { return .none }
    guard call.isStream, count > 0, call.credit + count <= Int32.max else {
      return .violation("\(peer) gave credit that makes no sense.")
    }
    call.credit += count
    let granted = min(call.credit, call.writers.count)
    let writers = call.writers.prefix(granted).map(\.waiter)
    call.writers.removeFirst(granted)
    call.credit -= granted
    incoming[id] = call
    return writers.isEmpty ? .none : .grant(writers)
  }

  /// The handler runs. False when its call has ended already: cancel it.
  mutating func attach(_ handler: Handler, to id: UInt64) -> Bool {
    guard incoming[id] != nil else { return false }
    incoming[id]!.handler = handler
    return true
  }

  /// The handler is done. False when nobody wants its answer any more.
  mutating func finish(_ id: UInt64) -> Bool {
    incoming.removeValue(forKey: id) != nil
  }

  /// Whether a call of the peer's still runs.
  func isRunning(_ id: UInt64) -> Bool { incoming[id] != nil }

  enum WriteAction: Sendable, Equatable {
    /// Send the element.
    case send
    /// There is no credit; `awaitCredit` keeps the waiter.
    case suspend
    /// The stream has ended: nobody reads it.
    case stop
  }

  /// A handler wants to send an element.
  mutating func write(_ id: UInt64) -> WriteAction {
    guard let call = incoming[id] else { return .stop }
    // Those who wait already go first.
    guard call.credit > 0, call.writers.isEmpty else { return .suspend }
    incoming[id]!.credit -= 1
    return .send
  }

  /// As `write`, and keeps the waiter under `ticket` when there is no credit.
  mutating func awaitCredit(_ id: UInt64, ticket: UInt64, waiter: Waiter) -> WriteAction {
    let action = write(id)
    if action == .suspend { incoming[id]!.writers.append((ticket, waiter)) }
    return action
  }

  /// A writer no longer waits; it is returned to be resumed unless that has happened already.
  mutating func cancelWrite(_ id: UInt64, ticket: UInt64) -> Waiter? {
    guard let index = incoming[id]?.writers.firstIndex(where: { $0.ticket == ticket }) else { return nil }
    return incoming[id]!.writers.remove(at: index).waiter
  }
}
