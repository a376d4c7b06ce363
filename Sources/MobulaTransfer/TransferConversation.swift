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
    var handshake = ServerHandshake(token: token, hello: hello)
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

  private func sendFrame(_ body: [UInt8]) throws(MobulaError) {
    var frame = FrameWriter()
    frame.append(contentsOf: body)
    try send(frame.frame)
  }

  private func receiveFrame(_ patience: Patience) throws(MobulaError) -> [UInt8] {
    let length = Int(UInt32(bigEndian: try receiveFixed(UInt32.self, patience)))
    guard 1...TransferMessage.maximumFrame ~= length else {
      throw MobulaError(
        .protocolViolation,
        "\(peer) sent a frame of \(length) bytes where at most \(TransferMessage.maximumFrame) are allowed: it is no mobula host."
      )
    }
    var body = [UInt8](repeating: 0, count: length)
    var failure: MobulaError?
    body.withUnsafeMutableBytes { buffer in
      do throws(MobulaError) { try receive(into: buffer, patience) } catch { failure = error }
    }
    if let failure { throw failure }
    return body
  }

  private func receiveFixed<Value: FixedWidthInteger>(_: Value.Type, _ patience: Patience) throws(MobulaError) -> Value
  {
    var value: Value = 0
    var failure: MobulaError?
    withUnsafeMutableBytes(of: &value) { buffer in
      do throws(MobulaError) { try receive(into: buffer, patience) } catch { failure = error }
    }
    if let failure { throw failure }
    return value
  }
}
