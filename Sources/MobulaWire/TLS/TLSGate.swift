internal import MobulaCore
internal import NIOCore

/// Below TLS on an accepted connection: tells plain peers that they need TLS, and lets the last word to a refused
/// one through before the connection is cut.
final class TLSGate: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private enum State {
    /// Nothing came yet. Can transition to: secured, draining.
    case waiting
    /// TLS came, and is passed on. Can transition to: established, draining.
    case secured
    /// The peer has proved that it belongs to the cluster.
    case established
    /// What comes is thrown away until the peer closes.
    case draining
  }

  private var state = State.waiting
  /// The body of a frame.
  private let refusal: [UInt8]

  init(refusal: [UInt8]) { self.refusal = refusal }

  func establish() { if case .secured = state { state = .established } }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch state {
    case .draining: return
    case .secured, .established: break
    case .waiting:
      let first = unwrapInboundIn(data).readableBytesView.first
      guard first == TLSFailure.handshakeByte else {
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: Frame.encode(refusal))), promise: nil)
        return drain(context)
      }
      state = .secured
    }
    context.fireChannelRead(data)
  }

  func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    // Closing at once, with bytes of the peer's unread, would take from it the alert that says why.
    guard mode == .all, case .secured = state, context.channel.isActive else {
      return context.close(mode: mode, promise: promise)
    }
    promise?.completeWith(context.channel.closeFuture)
    drain(context)
  }

  private func drain(_ context: ChannelHandlerContext) {
    state = .draining
    context.close(mode: .output, promise: nil)
    let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
    let cut = context.eventLoop.scheduleTask(in: .seconds(1)) { bound.value.close(promise: nil) }
    context.channel.closeFuture.whenComplete { _ in cut.cancel() }
  }
}
