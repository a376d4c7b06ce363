internal import NIOCore
internal import NIOHTTP1

/// Names the whole URL in each request, as a proxy wants it of requests without TLS (RFC 9112, section 3.2.2).
///
/// `@unchecked Sendable`: it belongs to one channel, on whose event loop alone it is used.
final class AbsoluteForm: ChannelOutboundHandler, @unchecked Sendable {
  typealias OutboundIn = HTTPClientRequestPart
  typealias OutboundOut = HTTPClientRequestPart

  private let authorization: String?

  /// - Parameter credentials: `USER:PASSWORD` for the proxy.
  init(credentials: String?) { authorization = credentials.map { "Basic \(base64(Array($0.utf8)))" } }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    guard case .head(var head) = unwrapOutboundIn(data), let host = head.headers.first(name: "host") else {
      return context.write(data, promise: promise)
    }
    head.uri = "http://\(host)\(head.uri)"
    if let authorization { head.headers.replaceOrAdd(name: "proxy-authorization", value: authorization) }
    context.write(wrapOutboundOut(.head(head)), promise: promise)
  }

  /// Between what the client writes and what encodes it.
  static func add(to channel: any Channel, credentials: String?) -> EventLoopFuture<Void> {
    channel.eventLoop.submit {
      let pipeline = channel.pipeline.syncOperations
      let encoder = try pipeline.handler(type: HTTPRequestEncoder.self)
      try pipeline.addHandler(AbsoluteForm(credentials: credentials), position: .after(encoder))
    }
  }
}
