package import MobulaCore
internal import NIOCore
internal import Synchronization

/// An authenticated connection to another process, over which either side calls the other.
///
/// It stays open until `close`, or until it is lost, whoever refers to it.
public final class RPCConnection: Sendable {
  typealias Waiter = CheckedContinuation<RPCMessage.Body?, any Error>
  typealias Machine = RPCStateMachine<Waiter, Task<Void, Never>>

  struct Shared: Sendable {
    var machine: Machine
    /// Frames to send with the next flush.
    var outbox = ByteBuffer()
    /// Whether a flush will come without anybody asking for it.
    var flushIsDue = false
    var timer: (task: Scheduled<Void>, instant: ContinuousClock.Instant)?
    var isGone = false
    var waitingForClose: [UInt64: CheckedContinuation<Void, Never>] = [:]
  }

  private static let lastID = Atomic<UInt64>(0)

  /// Different for every connection of this process.
  public let id: UInt64
  /// The other side's introduction.
  public let peer: Hello
  /// What the peer may call, by the token that it has proved; `nil` on a connection that this process made: the peer may
  /// call all that it is offered.
  public let authority: Authority?
  /// The newest wire version that both sides speak: what is newer is not to be asked of the peer.
  public var wireVersion: Int { session.version }
  let session: Handshake.Session
  /// What this side has proved, or takes as a proof.
  let token: ClusterToken
  let channel: any Channel
  let router: RPCRouter
  let options: RPCOptions
  let shared: Mutex<Shared>
  private let lastCall = Atomic<UInt64>(0)

  init(
    channel: any Channel, peer: Hello, title: String, session: Handshake.Session, authority: Authority?,
    token: ClusterToken, router: RPCRouter, options: RPCOptions
  ) {
    id = Self.lastID.wrappingAdd(1, ordering: .relaxed).newValue
    self.channel = channel
    self.peer = peer
    self.session = session
    self.authority = authority
    self.token = token
    self.router = router
    self.options = options
    shared = Mutex(Shared(machine: Machine(peer: title, window: options.streamWindow)))
  }

  /// Calls the peer and waits for its answer. Cancelling the calling task cancels the peer's handler.
  ///
  /// - Parameter deadline: how long to wait; the handler is cancelled after it as well.
  /// - Throws: the `MobulaError` that the handler threw; `deadlineExceeded`, `connectionClosed` (or `protocolViolation`
  ///   when the peer broke the protocol), `invalidArgument` for a request larger than a frame; `CancellationError`.
  public func call<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, deadline: Duration = .seconds(30)
  ) async throws -> Response {
    let id = newCall()
    let message = RPCMessage.request(
      id: id, method: method.name, milliseconds: Self.milliseconds(deadline),
      body: try encode(request, of: method.name))
    try check(message, of: method.name)
    let body = try await suspend(id) { shared, waiter in
      switch shared.machine.call(id, method.name, deadline: deadline, now: .now, waiter: waiter) {
      case .send: return .send(message)
      case .fail(let error): return .resume(.failure(error))
      }
    }
    guard let body else { preconditionFailure("only streams end without a body") }
    return try decode(Response.self, from: body, of: method.name)
  }

  /// Whether the peer has said that it takes such notices. One that a peer does not know ends the connection.
  package func takes<Message>(_ notice: RPCNotice<Message>) -> Bool { peer.notices?.contains(notice.name) == true }

  /// Tells the peer something that it does not answer. Never waits.
  ///
  /// - Throws: `MobulaError`: `connectionClosed`, or `invalidArgument` for a message larger than a frame.
  package func tell<Message>(_ notice: RPCNotice<Message>, _ message: Message) throws(MobulaError) {
    let frame = RPCMessage.notice(method: notice.name, body: try encode(message, of: notice.name))
    try check(frame, of: notice.name)
    let (isOpen, flush) = shared.withLock { shared in
      guard case .open = shared.machine.state else { return (false, false) }
      return (true, shared.enqueue(frame))
    }
    if flush { scheduleFlush() }
    guard isOpen else {
      throw MobulaError(.connectionClosed, "The connection to \(peer.title) is gone: nothing can be told over it.")
    }
  }

  /// Asks the peer for a sequence of elements.
  ///
  /// - Parameter deadline: how long it may take to the stream's end; `nil` for as long as the connection lives.
  /// - Throws: `MobulaError`: `connectionClosed`, or `invalidArgument` for a request larger than a frame.
  ///   The handler's errors are thrown where elements are read.
  public func stream<Request, Element>(
    _ method: RPCStreamMethod<Request, Element>, _ request: Request, deadline: Duration? = nil
  ) async throws -> RPCStream<Element> {
    let id = newCall()
    let message = RPCMessage.openStream(
      id: id, method: method.name, milliseconds: deadline.map(Self.milliseconds) ?? 0,
      credit: UInt32(options.streamWindow), body: try encode(request, of: method.name))
    try check(message, of: method.name)
    let (action, flush) = shared.withLock { shared in
      let action = shared.machine.openStream(id, method.name, deadline: deadline, now: .now)
      guard case .send = action else { return (action, false) }
      return (action, shared.enqueue(message))
    }
    if flush { scheduleFlush() }
    if case .fail(let error) = action { throw error }
    return RPCStream(subscription: .init(connection: self, id: id, method: method.name))
  }

  /// Gives up a call or stream of this side's, if it has not ended.
  func cancel(_ id: UInt64) {
    let (waiter, flush) = shared.withLock { shared -> (Waiter?, Bool) in
      guard case .send(let message, let waiter) = shared.machine.cancel(id) else { return (nil, false) }
      return (waiter, shared.enqueue(message))
    }
    if flush { scheduleFlush() }
    waiter?.resume(throwing: CancellationError())
  }

  func nextElement(_ id: UInt64) async throws -> RPCMessage.Body? {
    try await suspend(id) { shared, waiter in
      switch shared.machine.next(id, waiter: waiter) {
      case .deliver(let body, let credit): .resume(.success(body), credit)
      case .suspend: .suspend
      case .finish: .resume(.success(nil))
      case .fail(let error): .resume(.failure(error))
      }
    }
  }

  private enum Suspension: Sendable {
    case suspend
    /// Suspend after sending.
    case send(RPCMessage)
    /// Don't suspend, and send the message if there is one.
    case resume(Result<RPCMessage.Body?, MobulaError>, RPCMessage? = nil)
  }

  /// Waits for a call or an element. `body` runs under the lock.
  private func suspend(
    _ id: UInt64, _ body: sending (inout Shared, Waiter) -> Suspension
  ) async throws -> RPCMessage.Body? {
    if Task.isCancelled {
      cancel(id)
      throw CancellationError()
    }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (waiter: Waiter) in
        let (suspension, flush) = shared.withLock { shared in
          let suspension = body(&shared, waiter)
          switch suspension {
          case .send(let message): return (suspension, shared.enqueue(message))
          case .resume(_, let message?): return (suspension, shared.enqueue(message))
          default: return (suspension, false)
          }
        }
        if flush { scheduleFlush() }
        if case .resume(let result, _) = suspension { return waiter.resume(with: result.mapError { $0 }) }
        // A cancellation from before the waiter was kept found nothing to cancel.
        if Task.isCancelled { cancel(id) }
      }
    } onCancel: {
      cancel(id)
    }
  }

  func newCall() -> UInt64 { lastCall.wrappingAdd(1, ordering: .relaxed).newValue }

  /// Of a deadline, rounded up, since 0 would mean none.
  private static func milliseconds(_ deadline: Duration) -> UInt32 {
    let exact = (deadline / .milliseconds(1)).rounded(.up)
    return UInt32(min(max(exact, 1), Double(UInt32.max)))
  }

  func encode(_ value: some Encodable, of method: String) throws(MobulaError) -> RPCMessage.Body {
    do {
      return try CBOREncoder().encode(value)[...]
    } catch {
      throw MobulaError(.invalidArgument, "A value for \"\(method)\" can't be encoded: \(error)")
    }
  }

  func decode<Value: Decodable>(
    _ type: Value.Type, from body: RPCMessage.Body, of method: String
  ) throws(MobulaError) -> Value {
    do {
      return try CBORDecoder().decode(type, from: body)
    } catch {
      throw MobulaError(
        .protocolViolation,
        "\(peer.title) answered \"\(method)\" with something unreadable (\(error)): use the same version of Mobula on both sides."
      )
    }
  }

  func check(_ message: RPCMessage, of method: String) throws(MobulaError) {
    guard message.size <= options.maximumFrame.bytes else {
      throw MobulaError(
        .invalidArgument,
        "A message of \"\(method)\" has \(message.size) bytes, more than the \(options.maximumFrame.bytes) of a frame: pass big values as objects."
      )
    }
  }
}
