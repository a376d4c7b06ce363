internal import Dispatch
internal import NIOCore
internal import NIOTLS

/// A channel without a network: what goes out of its pipeline is kept for whoever sends it, what comes
/// in is put where a reader wants it.
///
/// Not thread-safe, although `Channel` has to be `Sendable`: `TLSSession` uses it under its lock only, from any thread.
final class TLSChannel: Channel, ChannelCore, @unchecked Sendable {
  let allocator = ByteBufferAllocator()
  private var chain: ChannelPipeline!
  private(set) var isActive = true
  /// Bytes for the peer.
  private var outgoing: ByteBuffer?
  private var unflushed: [ByteBuffer] = []
  /// Where decrypted bytes go, as far as they fit.
  var destination = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  /// Decrypted bytes that had no room in `destination`.
  var surplus = ByteBuffer()
  /// Whether this side has done its part of the handshake.
  private(set) var isEstablished = false
  /// What went wrong first.
  private(set) var failure: (any Error)?

  init(_ handler: some ChannelHandler) throws {
    chain = ChannelPipeline(channel: self)
    try chain.syncOperations.addHandler(handler)
    try chain.syncOperations.addHandler(EventHandler(channel: self))
  }

  /// Breaks the cycle of channel, pipeline and handlers.
  func end() {
    isActive = false
    removeHandlers(pipeline: chain)
  }

  func takeOutgoing() -> ByteBuffer? { outgoing.take() }

  // MARK: ChannelCore, which the pipeline's ends call

  func write0(_ data: NIOAny, promise: EventLoopPromise<Void>?) {
    unflushed.append(unwrapData(data, as: ByteBuffer.self))
    promise?.succeed(())
  }

  func flush0() {
    for var bytes in unflushed {
      // Nearly always one at a time, which is passed on as it is.
      if outgoing == nil { outgoing = bytes } else { outgoing!.writeBuffer(&bytes) }
    }
    unflushed.removeAll(keepingCapacity: true)
  }

  func channelRead0(_ data: NIOAny) {
    var bytes = unwrapData(data, as: ByteBuffer.self)
    let count = min(destination.count, bytes.readableBytes)
    if count > 0 {
      bytes.readWithUnsafeReadableBytes { source in
        destination.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[..<count]))
        return count
      }
      destination = UnsafeMutableRawBufferPointer(rebasing: destination[count...])
    }
    if bytes.readableBytes > 0 { surplus.writeBuffer(&bytes) }
  }

  func errorCaught0(error: any Error) { if failure == nil { failure = error } }

  func close0(error: any Error, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    if mode == .all { isActive = false }
    promise?.succeed(())
  }

  func read0() {}
  func register0(promise: EventLoopPromise<Void>?) { promise?.succeed(()) }
  func registerAlreadyConfigured0(promise: EventLoopPromise<Void>?) { promise?.succeed(()) }
  func bind0(to: SocketAddress, promise: EventLoopPromise<Void>?) { promise?.succeed(()) }
  func connect0(to: SocketAddress, promise: EventLoopPromise<Void>?) { promise?.succeed(()) }
  func triggerUserOutboundEvent0(_ event: Any, promise: EventLoopPromise<Void>?) {
    promise?.fail(ChannelError.operationUnsupported)
  }
  func localAddress0() throws -> SocketAddress { throw ChannelError.unknownLocalAddress }
  func remoteAddress0() throws -> SocketAddress { throw ChannelError.operationUnsupported }

  // MARK: Channel

  var eventLoop: any EventLoop { TLSLoop.shared }
  var pipeline: ChannelPipeline { chain }
  var _channelCore: any ChannelCore { self }
  var closeFuture: EventLoopFuture<Void> { eventLoop.makeSucceededVoidFuture() }
  var localAddress: SocketAddress? { nil }
  var remoteAddress: SocketAddress? { nil }
  var parent: (any Channel)? { nil }
  var isWritable: Bool { true }
  var syncOptions: (any NIOSynchronousChannelOptions)? { nil }

  func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) -> EventLoopFuture<Void> {
    eventLoop.makeFailedFuture(ChannelError.operationUnsupported)
  }

  func getOption<Option: ChannelOption>(_ option: Option) -> EventLoopFuture<Option.Value> {
    eventLoop.makeFailedFuture(ChannelError.operationUnsupported)
  }
}

extension TLSChannel {
  /// Hears of the end of the handshake.
  private final class EventHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private weak var channel: TLSChannel?

    init(channel: TLSChannel) { self.channel = channel }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
      if case TLSUserEvent.handshakeCompleted? = event as? TLSUserEvent { channel?.isEstablished = true }
      context.fireUserInboundEventTriggered(event)
    }
  }
}

/// The event loop of every `TLSChannel`: whoever has the session's lock is on it, and what it is given runs at once.
private final class TLSLoop: EventLoop {
  static let shared = TLSLoop()

  var inEventLoop: Bool { true }
  var now: NIODeadline { .now() }

  func execute(_ task: @escaping @Sendable () -> Void) { task() }

  func submit<T>(_ task: @escaping @Sendable () throws -> T) -> EventLoopFuture<T> {
    let promise = makePromise(of: T.self)
    // Through a closure of its own, since `T` need not be Sendable and nothing leaves this thread.
    promise.assumeIsolated().completeWith(Result { try task() })
    return promise.futureResult
  }

  /// Tasks for later never run: a session has no clock, and ends with its socket.
  func scheduleTask<T>(deadline: NIODeadline, _ task: @escaping @Sendable () throws -> T) -> Scheduled<T> {
    let promise = makePromise(of: T.self)
    promise.fail(ChannelError.operationUnsupported)
    return Scheduled(promise: promise, cancellationTask: {})
  }

  func scheduleTask<T>(in delay: TimeAmount, _ task: @escaping @Sendable () throws -> T) -> Scheduled<T> {
    scheduleTask(deadline: now + delay, task)
  }

  func shutdownGracefully(queue: DispatchQueue, _ callback: @escaping @Sendable ((any Error)?) -> Void) {
    callback(nil)
  }
}
