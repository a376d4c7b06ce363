import MobulaCore
import NIOCore
import NIOPosix
import Testing

@testable import MobulaWire

/// A peer that sends whatever bytes a test wants, over a real socket.
final class RawPeer: Sendable {
  private let channel: any Channel
  /// Bodies of frames that came; ends with the connection.
  private let frames: AsyncStream<[UInt8]>

  private final class Handler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private var decoder = FrameDecoder(limit: Frame.defaultLimit)
    private let frames: AsyncStream<[UInt8]>.Continuation
    init(_ frames: AsyncStream<[UInt8]>.Continuation) { self.frames = frames }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      var complete: [[UInt8]] = []
      try? decoder.append(Array(unwrapInboundIn(data).readableBytesView), to: &complete)
      for frame in complete { frames.yield(frame) }
    }
    func channelInactive(context: ChannelHandlerContext) { frames.finish() }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
  }

  private init(_ channel: any Channel, _ frames: AsyncStream<[UInt8]>) {
    self.channel = channel
    self.frames = frames
  }

  static func connect(to endpoint: Endpoint) async throws -> RawPeer {
    guard case .tcp(let host, let port) = endpoint else { throw Strange() }
    let (frames, continuation) = AsyncStream<[UInt8]>.makeStream()
    let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Handler(continuation)) }
      }
      .connect(host: host, port: port).get()
    return RawPeer(channel, frames)
  }

  /// Connects and goes through the handshake, as a good peer would.
  static func authenticated(to endpoint: Endpoint, token: ClusterToken) async throws -> RawPeer {
    let peer = try await connect(to: endpoint)
    var handshake = ClientHandshake(token: token, hello: Fixture.client)
    peer.send(Frame.encode(handshake.start()))
    while true {
      let frame = try #require(await peer.next())
      switch try handshake.receive(frame) {
      case .send(let body): peer.send(Frame.encode(body))
      case .done: return peer
      }
    }
  }

  /// Errors show in what comes back.
  func send(_ bytes: [UInt8]) { channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }

  func send(_ message: RPCMessage) {
    var buffer = ByteBuffer()
    message.encode(into: &buffer)
    channel.writeAndFlush(buffer, promise: nil)
  }

  /// The next frame; `nil` once the connection is closed.
  func next() async -> [UInt8]? {
    var iterator = frames.makeAsyncIterator()
    return await iterator.next()
  }

  /// Ends this side's output, as a process does that dies in the middle of a sentence.
  func close() async { try? await channel.close() }

  /// What the other side says before it closes; `nil` if it just closes.
  func goodbye() async throws -> MobulaError? {
    var last: [UInt8]?
    while let frame = await next() { last = frame }
    guard let last, case .goodbye(let body) = try RPCMessage(last) else { return nil }
    return MobulaError(wire: body)
  }
}
