internal import MobulaCore
internal import MobulaWire

extension TransferSocket {
  /// A connection to a host's server, over which both have proved themselves.
  ///
  /// - Parameter adopt: given each socket before it connects, so that another thread can shut it down; one that throws
  ///   ends this.
  /// - Throws: `MobulaError`: `unavailable` when nobody listens, `unauthenticated`, `deadlineExceeded`, `mismatch` when
  ///   another host answers.
  static func open(
    to peer: TransferPeer, token: ClusterToken, tls: ClusterTLS?, hello: Hello, timeouts: TransferTimeouts,
    adopt: (TransferSocket) throws(MobulaError) -> Void
  ) throws(MobulaError) -> TransferSocket {
    let deadline = ContinuousClock.now + timeouts.connect
    let name = "Host \(peer.host.short) at \(peer.bulk)"
    let socket = try connect(to: peer.bulk, peer: name, by: deadline, adopt: adopt)
    do throws(MobulaError) {
      // A socket that was shut down before it connected does not know.
      try adopt(socket)
      socket.setSendTimeout(timeouts.stall)
      let patience = Patience(stall: timeouts.connect, deadline: deadline)
      try socket.secureAsClient(tls, patience)
      let answered = try socket.authenticateAsClient(token: token, hello: hello, patience)
      guard answered.host == peer.host else {
        throw MobulaError(
          .mismatch,
          "At \(peer.bulk) host \(answered.host?.short ?? answered.name) answered instead of \(peer.host.short): it may have restarted, so ask the head again."
        )
      }
    } catch {
      socket.shutDown()
      throw error
    }
    return socket
  }
}

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
