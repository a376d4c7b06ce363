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
    case opened(Handshake.Transcript, peer: Hello, version: Int)
    case done(Handshake.Session)
    /// Nothing that comes now is answered.
    case failed
  }

  private let token: ClusterToken
  private let hello: Hello
  private let nonce: [UInt8]
  private let admits: @Sendable (Authority) throws(MobulaError) -> Void
  private var state = State.idle

  /// - Parameter admits: throws for those who have proved themselves and are not to be served here at all.
  public init(
    token: ClusterToken, hello: Hello, admits: @escaping @Sendable (Authority) throws(MobulaError) -> Void = { _ in }
  ) {
    self.init(token: token, hello: hello, nonce: randomBytes(Handshake.nonceSize), admits: admits)
  }

  init(
    token: ClusterToken, hello: Hello, nonce: [UInt8],
    admits: @escaping @Sendable (Authority) throws(MobulaError) -> Void = { _ in }
  ) {
    self.admits = admits
    self.token = token
    self.hello = hello
    self.nonce = nonce
  }

  /// Takes the body of the next frame from the client.
  ///
  /// - Throws: `MobulaError`: `unauthenticated` for a wrong token, `mismatch` for another wire version or cluster,
  ///   `denied` for a token that allows nothing here, `protocolViolation` for anything that no Mobula process sends. Send
  ///   `refusal(of:)` then, and close.
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
      try Handshake.check(number, upTo: version.hello?.newestWireVersion, against: hello)
      let opening = try Handshake.decode(Handshake.ClientOpening.self, from: frame, expecting: "a client's hello")
      guard opening.nonce.count == Handshake.nonceSize, opening.nonce != nonce else {
        throw Handshake.violation("the client's nonce is not one")
      }
      guard TokenSecret.areBounded((opening.hello.claims ?? []).map(\.bytes)) else {
        throw Handshake.violation("the claims of its token are too long")
      }
      let common = try Handshake.check(opening.hello, against: hello)
      var reply = Handshake.ServerReply(hello: hello, nonce: nonce)
      if common >= Handshake.versionWithClaims { reply.tokens = token.clusterTokens.map { ByteString($0.hint) } }
      let answer = Handshake.encode(reply)
      let transcript = Handshake.Transcript(
        clientNonce: opening.nonce, serverNonce: nonce, clientOpening: frame, serverOpening: answer)
      self.state = .opened(transcript, peer: opening.hello, version: common)
      return .send(answer)
    case .opened(let transcript, let peer, let version):
      let message = try Handshake.decode(Handshake.ClientProof.self, from: frame, expecting: "a client's proof")
      // As a build of the version before would, which knows no claims and takes the cluster token alone.
      let links = version >= Handshake.versionWithClaims ? (peer.claims ?? []).map(\.bytes) : []
      // Without claims it has the cluster token, which this process may have only for that.
      let keys = links.isEmpty ? token.elders.map(\.key) : token.secrets.compactMap { $0.key(for: links) }
      guard
        let index = keys.firstIndex(where: {
          constantTimeEqual(message.proof, transcript.proof(Handshake.clientLabel, $0))
        })
      else { throw Handshake.tokenRefused(links.isEmpty) }
      let authority = try TokenSecret.authority(of: links)
      try admits(authority)
      self.state = .done(
        Handshake.Session(
          version: version, authority: authority, hasOldToken: index > 0,
          sealingKey: transcript.proof(Handshake.sealLabel, keys[index])))
      let proof = transcript.proof(Handshake.serverLabel, keys[index])
      return .sendAndDone(Handshake.encode(Handshake.ServerReply(proof: proof)), peer: peer)
    }
  }

  /// What was agreed on, once it is through.
  var session: Handshake.Session? { if case .done(let session) = state { session } else { nil } }

  /// The last frame's body to send before closing, so that the client's user reads why.
  public func refusal(of error: MobulaError) -> [UInt8] {
    Handshake.encode(Handshake.ServerReply(error: error))
  }
}
