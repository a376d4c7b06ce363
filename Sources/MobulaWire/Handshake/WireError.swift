package import MobulaCore

extension MobulaError {
  /// Bytes of an error's message that travel: a longer one tells nobody more.
  private static let messageLimit = 32_768

  /// Any error as it travels: a `MobulaError` as it is, a cancellation as `cancelled`, others as `workFailed`.
  package init(describing error: any Error) {
    switch error {
    case let error as MobulaError: self = error
    case is CancellationError: self.init(.cancelled, "The call was cancelled.")
    default: self.init(.workFailed, "\(error)")
    }
  }

  /// Reads an error from a message's body; `nil` when it is none.
  init?(wire body: RPCMessage.Body) {
    guard let error = try? CBORDecoder().decode(MobulaError.self, from: body) else { return nil }
    self = error
  }

  var wire: RPCMessage.Body {
    var short = self
    if message.utf8.count > Self.messageLimit {
      short.message = String(decoding: message.utf8.prefix(Self.messageLimit), as: UTF8.self) + "…"
    }
    do {
      return try CBOREncoder().encode(short)[...]
    } catch {
      preconditionFailure("an error is strings and a number, which always encode: \(error)")
    }
  }
}
