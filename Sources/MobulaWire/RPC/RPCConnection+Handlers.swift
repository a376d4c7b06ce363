internal import MobulaCore
internal import Synchronization

/// The peer's calls, run by this side's handlers.
extension RPCConnection {
  func start(_ request: RPCRequest) {
    let task = Task { await self.run(request) }
    // It may have ended already, or its caller given up.
    let isWanted = shared.withLock { $0.machine.attach(task, to: request.id) }
    if !isWanted { task.cancel() }
  }

  /// A notice came; nothing that comes after it is looked at before its handler has returned.
  func hear(_ method: String, _ body: RPCMessage.Body) {
    do {
      guard case .notice(let handle)? = router.handlers[method] else {
        throw MobulaError(
          .notFound, "The notice \"\(method)\" is not taken here: use the same version of Mobula on both sides.")
      }
      if let authority { try authorise(method, authority) }
      try handle(body, self)
    } catch {
      // Whoever is told nothing has to be told so somehow.
      let reason = MobulaError(describing: error)
      shut(reason, saying: .goodbye(reason.wire))
    }
  }

  private func run(_ request: RPCRequest) async {
    var answer: RPCMessage
    do {
      answer = try await handle(request)
      try check(answer, of: request.method)
    } catch {
      answer = .error(id: request.id, body: MobulaError(describing: error).wire)
    }
    let flush = shared.withLock { shared in
      shared.machine.finish(request.id) ? shared.enqueue(answer) : false
    }
    if flush { scheduleFlush() }
  }

  private func handle(_ request: RPCRequest) async throws -> RPCMessage {
    let handler = router.handlers[request.method]
    // Before anything of the body is looked at. What nobody answers is told as such, whoever asks.
    if handler != nil, let authority { try authorise(request.method, authority) }
    switch (handler, request.isStream) {
    case (.call(let body), false):
      return .response(id: request.id, body: try await body(request.body, self)[...])
    case (.stream(let body), true):
      try await body(request, self)
      return .end(id: request.id)
    case (nil, _), (.notice, _):
      throw MobulaError(
        .notFound, "The method \"\(request.method)\" is not offered here: use the same version of Mobula on both sides."
      )
    case (_?, let isStream):
      throw MobulaError(
        .mismatch,
        "The method \"\(request.method)\" was used as \(isStream ? "a stream, but is a call" : "a call, but is a stream"): use the same version of Mobula on both sides."
      )
    }
  }

  /// - Throws: `MobulaError` (`denied`) when the peer's token does not allow the call, or not any more.
  private func authorise(_ method: String, _ authority: Authority) throws(MobulaError) {
    guard authority.role != nil else { return }
    if authority.expires != nil { try authority.check(at: secondsSince1970()) }
    try MethodRights.check(method, authority)
    try router.admits?(authority)
  }

  /// Sends a stream's element once there is credit for it.
  func write(_ message: RPCMessage, to id: UInt64, of method: String) async throws {
    try check(message, of: method)
    let (action, flush) = shared.withLock { shared in
      let action = shared.machine.write(id)
      return (action, action == .send ? shared.enqueue(message) : false)
    }
    switch action {
    case .send: if flush { scheduleFlush() }
    case .stop: throw shared.withLock { $0.machine.unread }
    case .suspend:
      try await awaitCredit(id)
      let flush = shared.withLock { $0.machine.isRunning(id) ? $0.enqueue(message) : false }
      if flush { scheduleFlush() }
    }
  }

  private func awaitCredit(_ id: UInt64) async throws {
    let ticket = newCall()
    _ = try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (waiter: Waiter) in
        let (action, error) = shared.withLock { shared in
          (shared.machine.awaitCredit(id, ticket: ticket, waiter: waiter), shared.machine.unread)
        }
        switch action {
        case .send: waiter.resume(returning: nil)
        case .stop: waiter.resume(throwing: error)
        case .suspend: if Task.isCancelled { cancelWrite(id, ticket: ticket) }
        }
      }
    } onCancel: {
      cancelWrite(id, ticket: ticket)
    }
  }

  private func cancelWrite(_ id: UInt64, ticket: UInt64) {
    let waiter = shared.withLock { $0.machine.cancelWrite(id, ticket: ticket) }
    waiter?.resume(throwing: CancellationError())
  }
}
