import MobulaCore
import NIOCore
import NIOPosix
import Synchronization

@testable import MobulaWire

/// Something at a port that is no Mobula process: it answers the first bytes of every connection with its own.
final class RoguePort: Sendable {
  private final class Answerer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let answer: [UInt8]?
    private let answered: @Sendable () -> Void
    private var isDone = false

    init(_ answer: [UInt8]?, _ answered: @escaping @Sendable () -> Void) {
      self.answer = answer
      self.answered = answered
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      if isDone { return }
      isDone = true
      answered()
      guard let answer else { return context.close(promise: nil) }
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: answer)), promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
  }

  let endpoint: Endpoint
  private let listener: any Channel
  private let seen: Seen

  private final class Seen: Sendable {
    let channels = Mutex<[any Channel]>([])
    let answers = Mutex(0)
  }

  /// How many connections it has answered.
  var answers: Int { seen.answers.withLock { $0 } }

  /// - Parameter answer: what it says; `nil`, and it closes the connection.
  static func bind(_ answer: [UInt8]?) async throws -> RoguePort {
    let seen = Seen()
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        seen.channels.withLock { $0.append(channel) }
        return channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(Answerer(answer) { seen.answers.withLock { $0 += 1 } })
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    return RoguePort(listener, seen)
  }

  private init(_ listener: any Channel, _ seen: Seen) {
    self.listener = listener
    self.seen = seen
    endpoint = .tcp(host: "127.0.0.1", port: listener.localAddress?.port ?? 0)
  }

  func close() async {
    try? await listener.close()
    for channel in seen.channels.withLock({ $0 }) { try? await channel.close() }
  }
}
