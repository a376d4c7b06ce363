public import MobulaCore

/// What a process offers to its peers: handlers by method name, put together before serving.
///
/// A handler runs in a task of its own, which is cancelled when its caller
/// cancels, when the caller's deadline passes, and when the connection is lost.
/// What it throws reaches the caller: a `MobulaError` as it is, others as `workFailed`.
public struct RPCRouter: Sendable {
  enum Handler: Sendable {
    case call(@Sendable (RPCMessage.Body, RPCConnection) async throws -> [UInt8])
    case stream(@Sendable (RPCRequest, RPCConnection) async throws -> Void)
    case notice(@Sendable (RPCMessage.Body, RPCConnection) throws -> Void)
  }

  private(set) var handlers: [String: Handler] = [:]
  /// Asked before each call of a peer that has less than the cluster token.
  private(set) var admits: (@Sendable (Authority) throws(MobulaError) -> Void)?

  /// A router that offers nothing.
  public init() {}

  /// Has `admits` throw for those whose calls are refused although their token would do: that of a job which has ended.
  public mutating func admit(_ admits: @escaping @Sendable (Authority) throws(MobulaError) -> Void) {
    self.admits = admits
  }

  /// Answers calls of `method`; each method has one handler.
  public mutating func on<Request, Response>(
    _ method: RPCMethod<Request, Response>,
    _ body: @escaping @Sendable (Request, RPCConnection) async throws -> Response
  ) {
    insert(
      .call { bytes, connection in
        let request = try Self.decode(Request.self, from: bytes, of: method.name)
        let response = try await body(request, connection)
        return try CBOREncoder().encode(response)
      }, for: method.name)
  }

  /// Answers streams of `method`: the stream ends when `body` returns.
  public mutating func on<Request, Element>(
    _ method: RPCStreamMethod<Request, Element>,
    _ body: @escaping @Sendable (Request, RPCConnection, RPCStreamWriter<Element>) async throws -> Void
  ) {
    insert(
      .stream { request, connection in
        let value = try Self.decode(Request.self, from: request.body, of: method.name)
        try await body(value, connection, RPCStreamWriter(connection: connection, id: request.id, method: method.name))
      }, for: method.name)
  }

  /// Hears notices of `notice`, in the order in which the peer sent them.
  ///
  /// - Parameter body: runs where everything of the connection is read, so it is not to wait for anything. What it throws
  ///   closes the connection.
  package mutating func on<Message>(
    _ notice: RPCNotice<Message>, _ body: @escaping @Sendable (Message, RPCConnection) throws -> Void
  ) {
    insert(
      .notice { bytes, connection in
        try body(try Self.decode(Message.self, from: bytes, of: notice.name), connection)
      }, for: notice.name)
  }

  private mutating func insert(_ handler: Handler, for name: String) {
    let previous = handlers.updateValue(handler, forKey: name)
    precondition(previous == nil, "the method \"\(name)\" has two handlers")
  }

  private static func decode<Value: Decodable>(
    _ type: Value.Type, from body: RPCMessage.Body, of method: String
  ) throws(MobulaError) -> Value {
    do {
      return try CBORDecoder().decode(type, from: body)
    } catch {
      throw MobulaError(
        .protocolViolation,
        "The request of \"\(method)\" can't be read (\(error)): use the same version of Mobula on both sides.")
    }
  }
}
