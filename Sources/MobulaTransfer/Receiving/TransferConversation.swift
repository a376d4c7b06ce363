internal import MobulaCore
internal import MobulaWire

/// Frames, messages and the handshake over a socket.
extension TransferSocket {
  func send(_ message: TransferMessage, more: Bool = false) throws(MobulaError) {
    try send(message.frame, more: more)
  }

  func receiveMessage(_ patience: Patience) throws(MobulaError) -> TransferMessage {
    try TransferMessage(receiveFrame(patience))
  }

  /// Proves to the peer that we have the token, and has it prove the same.
  func authenticateAsClient(token: ClusterToken, hello: Hello, _ patience: Patience) throws(MobulaError) -> Hello {
    var handshake = ClientHandshake(token: token, hello: hello)
    try sendFrame(handshake.start())
    while true {
      switch try handshake.receive(receiveFrame(patience)) {
      case .send(let frame): try sendFrame(frame)
      case .done(let peer): return peer
      }
    }
  }

  /// The other side of `authenticateAsClient`. A peer without the token is told so.
  func authenticateAsServer(token: ClusterToken, hello: Hello, _ patience: Patience) throws(MobulaError) -> Hello {
    var handshake = ServerHandshake(token: token, hello: hello, admits: Authority.checkIsCluster)
    while true {
      let frame = try receiveFrame(patience)
      do throws(MobulaError) {
        switch try handshake.receive(frame) {
        case .send(let frame): try sendFrame(frame)
        case .sendAndDone(let frame, let peer):
          try sendFrame(frame)
          return peer
        }
      } catch {
        try sendFrame(handshake.refusal(of: error))
        throw error
      }
    }
  }

  private func sendFrame(_ body: [UInt8]) throws(MobulaError) { try send(Frame.encode(body)) }

  private func receiveFrame(_ patience: Patience) throws(MobulaError) -> [UInt8] {
    let header = try receive(Frame.headerSize, patience)
    // Nothing longer is ever sent here, neither in the handshake nor after it.
    return try receive(Frame.length(header: header, limit: TransferMessage.maximumFrame), patience)
  }

  private func receive(_ count: Int, _ patience: Patience) throws(MobulaError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    try bytes.withUnsafeMutableBufferPointer { buffer throws(MobulaError) in
      try receive(into: UnsafeMutableRawBufferPointer(buffer), patience)
    }
    return bytes
  }
}
