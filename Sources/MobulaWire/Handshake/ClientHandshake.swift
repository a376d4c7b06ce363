public import MobulaCore

/// The connecting side of the handshake, without I/O: bodies of frames in, bodies of frames out.
public struct ClientHandshake: Sendable {
  public enum Step: Sendable, Equatable {
    /// Send this and wait for the next frame.
    case send([UInt8])
    /// Both sides have proved that they know the token.
    case done(peer: Hello)
  }

  private enum State: Sendable {
    /// Nothing was sent. Can transition to: opened.
    case idle
    /// Waits for the server's opening. Can transition to: proving, failed.
    case opened(opening: [UInt8])
    /// Waits for the server's proof. Can transition to: done, failed.
    case proving(Handshake.Transcript, peer: Hello, version: Int, key: [UInt8])
    case done(Handshake.Session)
    case failed
  }

  private let token: ClusterToken
  /// Those of it that it may prove, all with the same claims.
  private let secrets: [TokenSecret]
  private let hello: Hello
  private let nonce: [UInt8]
  private var state = State.idle

  public init(token: ClusterToken, hello: Hello) {
    self.init(token: token, hello: hello, nonce: randomBytes(Handshake.nonceSize))
  }

  init(token: ClusterToken, hello: Hello, nonce: [UInt8]) {
    self.token = token
    let secrets = token.secrets
    let links = secrets.first?.links ?? []
    self.secrets = secrets.filter { $0.links == links }
    var hello = hello
    hello.claims = links.isEmpty ? nil : links.map { ByteString($0) }
    self.hello = hello
    self.nonce = nonce
  }

  /// The first frame's body. To be called once, first.
  public mutating func start() -> [UInt8] {
    guard case .idle = state else { preconditionFailure("a handshake starts once") }
    let opening = Handshake.encode(Handshake.ClientOpening(magic: Handshake.magic, hello: hello, nonce: nonce))
    state = .opened(opening: opening)
    return opening
  }

  /// Takes the body of the next frame from the server.
  ///
  /// - Throws: `MobulaError`: the server's own refusal (`unauthenticated`, `mismatch`), or `protocolViolation`
  ///   when it is no Mobula process. Close the connection then.
  public mutating func receive(_ frame: [UInt8]) throws(MobulaError) -> Step {
    let state = self.state
    self.state = .failed
    switch state {
    case .idle, .done, .failed:
      throw Handshake.violation("a frame came that the handshake has no place for")
    case .opened(let opening):
      let reply = try read(frame, expecting: "the server's hello")
      guard let peer = reply.hello, let theirs = reply.nonce, theirs.count == Handshake.nonceSize, theirs != nonce
      else { throw Handshake.violation("the server's hello is incomplete") }
      let version = try Handshake.check(peer, against: hello)
      let transcript = Handshake.Transcript(
        clientNonce: nonce, serverNonce: theirs, clientOpening: opening, serverOpening: frame)
      let key = try key(for: peer, version: version, tokens: reply.tokens)
      self.state = .proving(transcript, peer: peer, version: version, key: key)
      return .send(Handshake.encode(Handshake.ClientProof(proof: transcript.proof(Handshake.clientLabel, key))))
    case .proving(let transcript, let peer, let version, let key):
      let reply = try read(frame, expecting: "the server's proof")
      guard let proof = reply.proof else { throw Handshake.violation("the server's proof is missing") }
      guard constantTimeEqual(proof, transcript.proof(Handshake.serverLabel, key)) else {
        throw MobulaError(
          .unauthenticated,
          "\(peer.title) does not know the cluster token: check the address, and use the token that `mobula start --head` wrote (--token-file)."
        )
      }
      self.state = .done(
        Handshake.Session(
          version: version, authority: .everything, sealingKey: transcript.proof(Handshake.sealLabel, key)))
      return .done(peer: peer)
    }
  }

  /// What was agreed on, once it is through.
  var session: Handshake.Session? { if case .done(let session) = state { session } else { nil } }

  /// The key to prove.
  ///
  /// - Parameter tokens: hints of those that the server has.
  private func key(for peer: Hello, version: Int, tokens: [ByteString]?) throws(MobulaError) -> [UInt8] {
    // A server that knows no claims is shown the cluster token, if this process can come by it.
    let known = version >= Handshake.versionWithClaims ? secrets : token.elders
    guard let first = known.first else {
      throw MobulaError(
        .mismatch,
        "\(peer.title) is of a build that knows no token but the cluster's, which this process does not have: upgrade that one first."
      )
    }
    guard first.isClusterToken, let tokens else { return first.key }
    return (known.first { tokens.contains(ByteString($0.hint)) } ?? first).key
  }

  private func read(_ frame: [UInt8], expecting what: String) throws(MobulaError) -> Handshake.ServerReply {
    let version = try Handshake.decode(Handshake.Version.self, from: frame, expecting: what)
    if let hello = version.hello {
      try Handshake.check(hello.wireVersion, upTo: hello.newestWireVersion, against: self.hello)
    }
    let reply = try Handshake.decode(Handshake.ServerReply.self, from: frame, expecting: what)
    if let error = reply.error { throw error }
    return reply
  }
}
