internal import MobulaCore

/// The sentences of a connection's errors: each names the method and the peer.
extension RPCStateMachine {
  func deadlineExceeded(_ method: String, _ deadline: Duration) -> MobulaError {
    // What is left of another deadline has many digits.
    let shown = Duration.milliseconds(Int64((deadline / .milliseconds(1)).rounded()))
    var error = MobulaError(
      .deadlineExceeded,
      "\(peer) did not answer \"\(method)\" within \(shown): look whether it is overloaded, or give it a longer deadline."
    )
    error.mayHaveRun = true
    return error
  }

  /// Why `method` has no answer, once the connection is closed.
  func lost(_ method: String) -> MobulaError {
    MobulaError(
      closedBy.code,
      "\"\(method)\" has no answer, since the connection to \(peer) is gone (\(reason)): look whether it still runs, and try again."
    )
  }

  /// Why a writer can't send its element.
  var unread: MobulaError {
    switch state {
    case .open: MobulaError(.cancelled, "\(peer) no longer reads the stream: stop writing to it.")
    case .closed:
      MobulaError(
        closedBy.code,
        "Nobody reads the stream, since the connection to \(peer) is gone (\(reason)): stop writing to it.")
    }
  }

  private var closedBy: MobulaError {
    guard case .closed(let error) = state else { preconditionFailure("an open connection has lost nothing") }
    return error
  }

  private var reason: Substring {
    closedBy.message.hasSuffix(".") ? closedBy.message.dropLast() : closedBy.message[...]
  }
}
