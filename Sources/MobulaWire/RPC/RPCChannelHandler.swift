internal import MobulaCore
internal import NIOCore

/// The bottom of a connection: cuts bytes into frames, leads through the
/// handshake, then passes frames to the `RPCConnection` that it makes.
final class RPCChannelHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  enum Phase {
    /// Can transition to: open, over.
    case client(ClientHandshake)
    /// Can transition to: open, over.
    case server(ServerHandshake)
    case open(RPCConnection)
    /// The handshake failed.
    case over
  }

  private var phase: Phase
  /// The other side's address, where it is the one that was asked for.
  private let endpoint: Endpoint?
  private let token: ClusterToken
  private let router: RPCRouter
  private let options: RPCOptions
  /// Called once, when the handshake is through or has failed.
  private let ready: @Sendable (Result<RPCConnection, MobulaError>) -> Void
  private var decoder = FrameDecoder(limit: Frame.handshakeLimit)
  private var keepalive: KeepaliveStateMachine
  private var handshakeTimer: Scheduled<Void>?
  private var keepaliveTimer: RepeatedTask?
  /// The first error of the channel or the stream, to be told when it has closed.
  private var failure: MobulaError?
  /// Whether what comes is thrown away, since the stream has lost its frames or its sense.
  private var isDraining = false
  /// What is below TLS, where there is TLS.
  private let gate: TLSGate?

  init(
    _ phase: Phase, endpoint: Endpoint?, token: ClusterToken, router: RPCRouter, options: RPCOptions,
    gate: TLSGate? = nil,
    ready: @escaping @Sendable (Result<RPCConnection, MobulaError>) -> Void
  ) {
    self.phase = phase
    self.endpoint = endpoint
    self.token = token
    self.router = router
    self.options = options
    self.gate = gate
    self.ready = ready
    keepalive = KeepaliveStateMachine(interval: options.pingInterval, silenceLimit: options.silenceLimit)
  }

  private var other: String { endpoint?.description ?? "The peer" }

  private var closedEarly: MobulaError {
    MobulaError(
      .connectionClosed,
      "\(other) closed the connection during the handshake: check that it is a Mobula process, and look at its log.")
  }

  func handlerAdded(context: ChannelHandlerContext) {
    if context.channel.isActive {
      begin(context)
    } else if case .client = phase {
      // Added to a connected channel, which has been closed since: no event will come.
      fail(closedEarly, context)
    }
  }

  func channelActive(context: ChannelHandlerContext) {
    begin(context)
  }

  private func begin(_ context: ChannelHandlerContext) {
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    handshakeTimer = context.eventLoop.scheduleTask(in: TimeAmount(options.handshakeTimeout)) {
      let (handler, context) = bound.value
      handler.fail(
        MobulaError(
          .deadlineExceeded,
          "\(handler.other) did not finish the handshake in time: check that the address is a Mobula process's."
        ),
        context)
    }
    guard case .client(var handshake) = phase else { return }
    send(handshake.start(), context)
    phase = .client(handshake)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    keepalive.received()
    // Only what a peer with a certificate has sent comes so far.
    gate?.establish()
    if isDraining { return }
    let buffer = unwrapInboundIn(data)
    buffer.withUnsafeReadableBytes { bytes in
      var rest = bytes
      do throws(MobulaError) {
        while !isDraining, let frame = try decoder.next(&rest) { take(frame, context) }
      } catch {
        refuse(error, context)
      }
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if case .open(let connection) = phase { connection.flush() }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // A peer that ends without a farewell of TLS's is met here often; `channelInactive` says what it means.
    if TLSFailure.isEnd(error) { return }
    if case .open = phase {
    } else if TLSFailure.isTLS(error) {
      if failure == nil { failure = TLSFailure.describe(error, peer: other) }
      return fail(failure!, context)
    }
    let text = (error as? IOError).map { errnoText($0.errnoCode) } ?? "\(error)"
    if failure == nil { failure = MobulaError(.connectionClosed, "The connection to \(other) failed: \(text).") }
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) {
    do throws(MobulaError) {
      if !isDraining { try decoder.finish() }
    } catch {
      if failure == nil { failure = error }
    }
    if case .open(let connection) = phase {
      connection.channelClosed(failure ?? MobulaError(.connectionClosed, "The other side is gone."))
    } else {
      fail(failure ?? closedEarly, context)
    }
    handshakeTimer?.cancel()
    keepaliveTimer?.cancel()
  }

  private func take(_ frame: [UInt8], _ context: ChannelHandlerContext) {
    do throws(MobulaError) {
      switch phase {
      case .open(let connection): connection.receive(frame)
      case .over: break
      case .client(var handshake):
        let step = try handshake.receive(frame)
        phase = .client(handshake)
        switch step {
        case .send(let body): send(body, context)
        case .done(let peer): open(peer, handshake.session, authority: nil, context)
        }
      case .server(var handshake):
        let step = try handshake.receive(frame)
        phase = .server(handshake)
        switch step {
        case .send(let body): send(body, context)
        case .sendAndDone(let body, let peer):
          send(body, context)
          open(peer, handshake.session, authority: handshake.session?.authority, context)
        }
      }
    } catch {
      refuse(error, context)
    }
  }

  /// Bytes came that can't be answered: says so, and closes.
  private func refuse(_ error: MobulaError, _ context: ChannelHandlerContext) {
    switch phase {
    case .open(let connection): connection.shut(error, saying: .goodbye(error.wire))
    case .server(let handshake):
      send(handshake.refusal(of: error), context)
      phase = .over
      ready(.failure(error))
      closeGently(context.channel, within: .seconds(1))
    case .client, .over: fail(error, context)
    }
    isDraining = true
  }

  /// Ends a handshake that can't succeed, without a word to the other side.
  private func fail(_ error: MobulaError, _ context: ChannelHandlerContext) {
    switch phase {
    case .open: return
    case .over: break
    case .client, .server:
      phase = .over
      ready(.failure(error))
    }
    context.close(promise: nil)
  }

  /// - Parameter authority: what the peer may call; `nil` where this side connected, and offers no more than it shall.
  private func open(
    _ peer: Hello, _ session: Handshake.Session?, authority: Authority?, _ context: ChannelHandlerContext
  ) {
    guard let session else { preconditionFailure("a handshake that is through has agreed on something") }
    handshakeTimer?.cancel()
    decoder.limit = options.maximumFrame
    let title = endpoint.map { "\(peer.title) at \($0)" } ?? peer.title
    let connection = RPCConnection(
      channel: context.channel, peer: peer, title: title, session: session, authority: authority, token: token,
      router: router, options: options)
    phase = .open(connection)
    let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
    let interval = TimeAmount(options.pingInterval)
    keepaliveTimer = context.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
      bound.value.tick(connection)
    }
    ready(.success(connection))
  }

  private func tick(_ connection: RPCConnection) {
    switch keepalive.tick() {
    case .none: break
    case .ping: connection.ping()
    case .close:
      connection.shut(
        MobulaError(.connectionClosed, "It was silent for \(options.silenceLimit)."), saying: nil)
    }
  }

  private func send(_ body: [UInt8], _ context: ChannelHandlerContext) {
    context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: Frame.encode(body))), promise: nil)
  }
}
