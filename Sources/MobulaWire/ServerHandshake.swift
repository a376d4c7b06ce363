public import MobulaCore

/// The accepting side of the handshake, without I/O: bodies of frames in, bodies of frames out.
public struct ServerHandshake: Sendable {
  public enum Step: Sendable, Equatable {
    /// Send this and wait for the next frame.
    case send([UInt8])
    /// Send this; the client has proved that it knows the token.
    case sendAndDone([UInt8], peer: Hello)
  }

  private enum State: Sendable {
    /// Waits for the client's opening. Can transition to: opened, failed.
    case idle
    /// Waits for the client's proof. Can transition to: done, failed.
    case opened(Handshake.Transcript, peer: Hello)
    case done
    /// Nothing that comes now is answered.
    case failed
  }

  private let token: ClusterToken
  private let hello: Hello
  private let nonce: [UInt8]
  private var state = State.idle

  public init(token: ClusterToken, hello: Hello) {
    self.init(token: token, hello: hello, nonce: randomBytes(Handshake.nonceSize))
  }

  init(token: ClusterToken, hello: Hello, nonce: [UInt8]) {
    self.token = token
    self.hello = hello
    self.nonce = nonce
  }

  /// Takes the body of the next frame from the client.
  ///
  /// - Throws: `MobulaError`: `unauthenticated` for a wrong token, `mismatch` for another wire version or cluster,
  ///   `protocolViolation` for anything that no Mobula process sends. Send `refusal(of:)` then, and close.
  public mutating func receive(_ frame: [UInt8]) throws(MobulaError) -> Step {
    let state = self.state
    self.state = .failed
    switch state {
    case .done, .failed:
      throw Handshake.violation("a frame came that the handshake has no place for")
    case .idle:
      let version = try Handshake.decode(Handshake.Version.self, from: frame, expecting: "a client's hello")
      guard version.magic == Handshake.magic, let number = version.hello?.wireVersion else {
        throw Handshake.violation("something else came where a client's hello was expected")
      }
      try Handshake.check(version: number, against: hello)
      let opening = try Handshake.decode(Handshake.ClientOpening.self, from: frame, expecting: "a client's hello")
      guard opening.nonce.count == Handshake.nonceSize, opening.nonce != nonce else {
        throw Handshake.violation("the client's nonce is not one")
      }
      try Handshake.check(opening.hello, against: hello)
      let answer = Handshake.encode(Handshake.ServerReply(hello: hello, nonce: nonce))
      let transcript = Handshake.Transcript(
        clientNonce: opening.nonce, serverNonce: nonce, clientOpening: frame, serverOpening: answer)
      self.state = .opened(transcript, peer: opening.hello)
      return .send(answer)
    case .opened(let transcript, let peer):
      let message = try Handshake.decode(Handshake.ClientProof.self, from: frame, expecting: "a client's proof")
      guard constantTimeEqual(message.proof, transcript.proof(Handshake.clientLabel, token)) else {
        throw Handshake.tokenRefused()
      }
      self.state = .done
      let proof = transcript.proof(Handshake.serverLabel, token)
      return .sendAndDone(Handshake.encode(Handshake.ServerReply(proof: proof)), peer: peer)
    }
  }

  /// The last frame's body to send before closing, so that the client's user reads why.
  public func refusal(of error: MobulaError) -> [UInt8] {
    Handshake.encode(Handshake.ServerReply(error: error))
  }
}
