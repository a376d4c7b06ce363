internal import MobulaCore
internal import NIOCore
internal import Synchronization

extension RPCConnection.Shared {
  /// Puts a message into the outbox. True when the caller must schedule a flush, which takes all that is there by then.
  mutating func enqueue(_ message: RPCMessage) -> Bool {
    message.encode(into: &outbox)
    defer { flushIsDue = true }
    return !flushIsDue
  }
}

/// Between the lock and the channel. What is not said to be for any thread runs on the event loop.
extension RPCConnection {
  /// How long a goodbye may take to get through before the connection is cut.
  private static let lingering = TimeAmount.seconds(1)

  /// From any thread.
  func scheduleFlush() { channel.eventLoop.execute { self.flush() } }

  /// Writes all of the outbox at once, and sees to the next deadline.
  func flush() {
    let now = ContinuousClock.now
    let (bytes, superseded) = shared.withLock { shared in
      var bytes = ByteBuffer()
      swap(&bytes, &shared.outbox)
      shared.flushIsDue = false
      return (bytes, arm(&shared, now: now))
    }
    superseded?.cancel()
    if bytes.readableBytes > 0 { channel.writeAndFlush(bytes, promise: nil) }
  }

  /// Sets the timer to the earliest deadline, if it is not set to that or an earlier one. Returns one to cancel.
  private func arm(_ shared: inout Shared, now: ContinuousClock.Instant) -> Scheduled<Void>? {
    guard let next = shared.machine.nextDeadline else { return nil }
    if let timer = shared.timer, timer.instant <= next { return nil }
    let superseded = shared.timer?.task
    let task = channel.eventLoop.scheduleTask(in: TimeAmount(max(.zero, now.duration(to: next)))) { self.expire() }
    shared.timer = (task, next)
    return superseded
  }

  private func expire() {
    let expiry = shared.withLock { shared in
      shared.timer = nil
      let expiry = shared.machine.expire(now: .now)
      for message in expiry.messages { _ = shared.enqueue(message) }
      return expiry
    }
    for handler in expiry.handlers { handler.cancel() }
    for (waiter, error) in expiry.failed { waiter.resume(throwing: error) }
    for writer in expiry.writers { writer.resume(throwing: CancellationError()) }
    flush()
  }

  /// Takes a frame's body from the peer. `flush` must follow, once a batch.
  func receive(_ frame: [UInt8]) {
    let message: RPCMessage
    do throws(MobulaError) {
      message = try RPCMessage(frame)
    } catch {
      return shut(error, saying: .goodbye(error.wire))
    }
    let action = shared.withLock { shared in
      let action = shared.machine.receive(message, now: .now)
      switch action {
      case .resume(_, _, let answer?), .send(let answer): _ = shared.enqueue(answer)
      default: break
      }
      return action
    }
    switch action {
    case .none, .send: break
    case .resume(let waiter, let result, _): waiter.resume(with: result.mapError { $0 })
    case .grant(let writers): for writer in writers { writer.resume(returning: nil) }
    case .start(let request): start(request)
    case .tell(let method, let body): hear(method, body)
    case .cancel(let handler, let writers):
      handler?.cancel()
      for writer in writers { writer.resume(throwing: CancellationError()) }
    case .refuse(let error): shut(error, saying: .goodbye(error.wire))
    case .closed(let reason): shut(reason, saying: nil)
    }
  }

  /// Sends a ping, unless the connection is closing.
  func ping() {
    shared.withLock { shared in
      if case .open = shared.machine.state { _ = shared.enqueue(.ping) }
    }
    flush()
  }

  /// Ends all calls and then the channel, after `goodbye` if there is one. From any thread, any number of times.
  func shut(_ reason: MobulaError, saying goodbye: RPCMessage?) {
    let closing = shared.withLock { shared in
      let closing = shared.machine.close(reason)
      if closing != nil, let goodbye { _ = shared.enqueue(goodbye) }
      return closing
    }
    guard let closing else { return }
    for handler in closing.handlers { handler.cancel() }
    for (waiter, error) in closing.failed { waiter.resume(throwing: error) }
    channel.eventLoop.execute { [channel] in
      self.flush()
      guard goodbye != nil else { return channel.close(promise: nil) }
      closeGently(channel, within: Self.lingering)
    }
  }

  /// The channel is closed: nothing comes or goes any more.
  func channelClosed(_ reason: MobulaError) {
    shut(reason, saying: nil)
    let (timer, waiting) = shared.withLock { shared in
      shared.isGone = true
      defer {
        shared.timer = nil
        shared.waitingForClose = [:]
      }
      return (shared.timer?.task, shared.waitingForClose.values)
    }
    timer?.cancel()
    for continuation in waiting { continuation.resume() }
  }
}

extension RPCConnection {
  /// Whether calls can be made on it.
  public var isOpen: Bool {
    shared.withLock { if case .open = $0.machine.state { true } else { false } }
  }

  /// Closes the connection and waits until it is gone. Calls that run fail on both sides.
  public func close() async {
    let reason = MobulaError(.connectionClosed, "It was closed by this side.")
    shut(reason, saying: .goodbye([]))
    await waitUntilClosed()
  }

  /// Returns when the connection is gone, for whatever reason, or when the waiting task is cancelled.
  public func waitUntilClosed() async {
    let ticket = newCall()
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let isOver = shared.withLock { shared in
          if shared.isGone || Task.isCancelled { return true }
          shared.waitingForClose[ticket] = continuation
          return false
        }
        if isOver { continuation.resume() }
      }
    } onCancel: {
      shared.withLock { $0.waitingForClose.removeValue(forKey: ticket) }?.resume()
    }
  }
}

/// Sends what was written and then the stream's end, reads on (into nothing) until
/// the peer ends its side too, and cuts the connection after `patience`.
///
/// Closing at once, with bytes of the peer's unread, would reset the connection
/// and take the last message from the peer before it has read it.
func closeGently(_ channel: any Channel, within patience: TimeAmount) {
  channel.close(mode: .output, promise: nil)
  let cut = channel.eventLoop.scheduleTask(in: patience) { channel.close(promise: nil) }
  channel.closeFuture.whenComplete { _ in cut.cancel() }
}
