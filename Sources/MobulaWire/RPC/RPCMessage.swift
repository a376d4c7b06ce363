internal import MobulaCore

/// What travels in one frame of an RPC connection.
///
/// Either side calls the other. A caller numbers its calls; `request`,
/// `openStream`, `cancel` and `credit` go from caller to callee, `response`,
/// `error`, `element` and `end` from callee to caller, so that the two
/// directions' numbers never meet.
enum RPCMessage: Sendable, Hashable {
  typealias Body = ArraySlice<UInt8>

  /// Asks for one response. `milliseconds` is what is left of the caller's deadline; 0 for none.
  case request(id: UInt64, method: String, milliseconds: UInt32, body: Body)
  /// Is told, and not answered.
  case notice(method: String, body: Body)
  /// Asks for a sequence of elements, of which `credit` may be sent at once.
  case openStream(id: UInt64, method: String, milliseconds: UInt32, credit: UInt32, body: Body)
  case response(id: UInt64, body: Body)
  /// The call or stream failed; the body is a `MobulaError`.
  case error(id: UInt64, body: Body)
  /// The caller no longer wants the answer.
  case cancel(id: UInt64)
  case element(id: UInt64, body: Body)
  /// No more elements.
  case end(id: UInt64)
  /// `count` more elements may be sent.
  case credit(id: UInt64, count: UInt32)
  case ping
  case pong
  /// The last message: the sender closes. The body is a `MobulaError` that says why, or empty.
  case goodbye(Body)
}

/// A request as its handler gets it.
struct RPCRequest: Sendable, Hashable {
  var id: UInt64
  var method: String
  var body: RPCMessage.Body
  var isStream: Bool
}
