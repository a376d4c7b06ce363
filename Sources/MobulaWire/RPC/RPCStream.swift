/// The elements that a peer's handler writes, in order.
///
/// The peer is at most `RPCOptions.streamWindow` elements ahead of the reader.
/// Dropping the stream, or cancelling the task that waits for an element,
/// cancels the handler. One task reads at a time.
public struct RPCStream<Element: Codable & Sendable>: AsyncSequence, Sendable {
  /// Cancels the stream when nobody can read it any more.
  final class Subscription: Sendable {
    let connection: RPCConnection
    let id: UInt64
    let method: String

    init(connection: RPCConnection, id: UInt64, method: String) {
      self.connection = connection
      self.id = id
      self.method = method
    }

    deinit { connection.cancel(id) }
  }

  let subscription: Subscription

  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(subscription: subscription) }

  public struct AsyncIterator: AsyncIteratorProtocol {
    let subscription: Subscription

    /// The next element; `nil` after the handler has returned.
    ///
    /// - Throws: what the handler threw, `CancellationError`, or `MobulaError`: `deadlineExceeded`, `connectionClosed`.
    public func next() async throws -> Element? {
      guard let body = try await subscription.connection.nextElement(subscription.id) else {
        // A cancelled reader must not take a cut stream for a whole one: the cancellation may have ended it just now.
        try Task.checkCancellation()
        return nil
      }
      return try subscription.connection.decode(Element.self, from: body, of: subscription.method)
    }
  }
}

/// Where a stream's handler puts its elements.
public struct RPCStreamWriter<Element: Codable & Sendable>: Sendable {
  let connection: RPCConnection
  let id: UInt64
  let method: String

  /// Sends one element, once the reader has room for it.
  ///
  /// - Throws: `CancellationError`, or `MobulaError`: `cancelled` when the reader has given up, `connectionClosed`,
  ///   or `invalidArgument` for an element larger than a frame.
  public func write(_ element: Element) async throws {
    let body = try connection.encode(element, of: method)
    try await connection.write(.element(id: id, body: body), to: id, of: method)
  }
}
