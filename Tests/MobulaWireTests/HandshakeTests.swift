import MobulaCore
import Testing

@testable import MobulaWire

@Suite struct HandshakeTests {
  let token = ClusterToken.random()
  let client = Hello(role: .driver, name: "ada", process: 1)
  let server = Hello(role: .head, name: "bob", process: 2)

  /// The code of the error that `body` throws, or `nil`.
  func code(_ body: () throws -> Void) -> MobulaError.Code? {
    do { try body() } catch { return (error as? MobulaError)?.code }
    return nil
  }

  func sent(_ step: ServerHandshake.Step) throws -> [UInt8] {
    guard case .send(let frame) = step else { throw Strange() }
    return frame
  }

  func sent(_ step: ClientHandshake.Step) throws -> [UInt8] {
    guard case .send(let frame) = step else { throw Strange() }
    return frame
  }

  /// Both sides up to the client's proof.
  func upToProof(
    _ c: inout ClientHandshake, _ s: inout ServerHandshake
  ) throws -> (opening: [UInt8], answer: [UInt8], proof: [UInt8]) {
    let opening = c.start()
    let answer = try sent(s.receive(opening))
    return (opening, answer, try sent(c.receive(answer)))
  }

  @Test func bothSidesProveThemselves() throws {
    var c = ClientHandshake(token: token, hello: client)
    var s = ServerHandshake(token: token, hello: server)
    let (_, _, proof) = try upToProof(&c, &s)
    guard case .sendAndDone(let last, let peer) = try s.receive(proof) else { throw Strange() }
    #expect(peer == client)
    #expect(try c.receive(last) == .done(peer: server))
  }

  @Test func theTokenIsNeverSent() throws {
    let secret = "a-secret-that-nobody-sends"
    let token = try ClusterToken(secret)
    var c = ClientHandshake(token: token, hello: client)
    var s = ServerHandshake(token: token, hello: server)
    let (opening, answer, proof) = try upToProof(&c, &s)
    guard case .sendAndDone(let last, _) = try s.receive(proof) else { throw Strange() }
    for frame in [opening, answer, proof, last] {
      #expect(!String(decoding: frame, as: UTF8.self).contains("secret"))
    }
  }

  @Test func aWrongTokenIsRefusedWithASentence() throws {
    var c = ClientHandshake(token: .random(), hello: client)
    var s = ServerHandshake(token: token, hello: server)
    let (_, _, proof) = try upToProof(&c, &s)
    let refused = #expect(throws: MobulaError.self) { try s.receive(proof) }
    #expect(
      refused?.message
        == "The cluster token was refused: use the token that `mobula start --head` wrote (--token-file).")
    #expect(refused?.code == .unauthenticated)
    let told = #expect(throws: MobulaError.self) { try c.receive(s.refusal(of: refused!)) }
    #expect(told == refused)
    // Not even the right proof helps after that.
    #expect(code { _ = try s.receive(proof) } == .protocolViolation)
  }

  @Test func aServerWithoutTheTokenIsFoundOut() throws {
    var c = ClientHandshake(token: token, hello: client)
    var s = ServerHandshake(token: .random(), hello: server)
    _ = try upToProof(&c, &s)
    let forged = Handshake.encode(Handshake.ServerReply(proof: randomBytes(32)))
    #expect(code { _ = try c.receive(forged) } == .unauthenticated)
  }

  @Test func aProofHoldsForOneConnection() throws {
    var c = ClientHandshake(token: token, hello: client)
    var s = ServerHandshake(token: token, hello: server)
    let (opening, _, proof) = try upToProof(&c, &s)
    var second = ServerHandshake(token: token, hello: server)
    _ = try second.receive(opening)
    #expect(code { _ = try second.receive(proof) } == .unauthenticated)
  }

  @Test func aServersProofIsNoClients() throws {
    let (clientNonce, serverNonce) = (randomBytes(32), randomBytes(32))
    var c = ClientHandshake(token: token, hello: client, nonce: clientNonce)
    var s = ServerHandshake(token: token, hello: server, nonce: serverNonce)
    let (opening, answer, _) = try upToProof(&c, &s)
    let transcript = Handshake.Transcript(
      clientNonce: clientNonce, serverNonce: serverNonce, clientOpening: opening, serverOpening: answer)
    let reflected = Handshake.encode(
      Handshake.ClientProof(proof: transcript.proof(Handshake.serverLabel, Array(token.text.utf8))))
    #expect(code { _ = try s.receive(reflected) } == .unauthenticated)
    // Nor is the server's nonce, sent back as the client's own, accepted.
    var other = ServerHandshake(token: token, hello: server, nonce: serverNonce)
    var mirror = ClientHandshake(token: token, hello: client, nonce: serverNonce)
    #expect(code { _ = try other.receive(mirror.start()) } == .protocolViolation)
  }

  @Test func aChangedHelloIsNoticed() throws {
    var c = ClientHandshake(token: token, hello: client)
    var s = ServerHandshake(token: token, hello: server)
    let opening = c.start()
    var changed = try Handshake.decode(Handshake.ClientOpening.self, from: opening, expecting: "")
    changed.hello.role = .host
    let answer = try sent(s.receive(Handshake.encode(changed)))
    let proof = try sent(c.receive(answer))
    #expect(code { _ = try s.receive(proof) } == .unauthenticated)
  }

  @Test(arguments: [(7, nil), (4, 5), (1, 1), (1, nil)] as [(Int, Int?)])
  func versionsMustMeet(_ oldest: Int, _ newest: Int?) throws {
    var newer = client
    (newer.wireVersion, newer.newestWireVersion) = (oldest, newest)
    var s = ServerHandshake(token: token, hello: server)
    var c = ClientHandshake(token: token, hello: newer)
    let refused = #expect(throws: MobulaError.self) { try s.receive(c.start()) }
    #expect(refused?.code == .mismatch)
    #expect(refused?.message.contains("version \(oldest)") == true)
    #expect(refused?.message.contains("speaks 2 to 3") == true)
    #expect(throws: refused!) { try c.receive(s.refusal(of: refused!)) }
  }

  /// The common version, whoever of two is the newer build; a build that speaks one version says so alone.
  @Test(
    arguments: [
      ((2, 3), (2, 3), 3), ((2, nil), (2, 3), 2), ((2, 3), (2, nil), 2), ((3, 4), (2, 3), 3), ((2, 3), (3, 4), 3),
      ((3, nil), (2, 3), 3), ((2, nil), (2, nil), 2),
    ] as [((Int, Int?), (Int, Int?), Int)])
  func theNewestCommonVersionIsTaken(_ one: (Int, Int?), _ other: (Int, Int?), _ common: Int) throws {
    var (a, b) = (client, server)
    (a.wireVersion, a.newestWireVersion) = one
    (b.wireVersion, b.newestWireVersion) = other
    var c = ClientHandshake(token: token, hello: a)
    var s = ServerHandshake(token: token, hello: b)
    let (_, _, proof) = try upToProof(&c, &s)
    guard case .sendAndDone(let last, _) = try s.receive(proof) else { throw Strange() }
    _ = try c.receive(last)
    #expect(c.session?.version == common && s.session?.version == common)
  }

  @Test func versionsThatEndBeforeTheyBeginAreAViolation() throws {
    var odd = client
    (odd.wireVersion, odd.newestWireVersion) = (3, 2)
    var s = ServerHandshake(token: token, hello: server)
    var c = ClientHandshake(token: token, hello: odd)
    #expect(code { _ = try s.receive(c.start()) } == .protocolViolation)
  }

  @Test func aVersionWithAnotherHelloIsToldWhichOneItNeeds() throws {
    struct Opening: Codable {
      struct Part: Codable { var wireVersion = Hello.currentWireVersion + 1 }
      var magic = "mobula"
      var hello = Part()
    }
    var s = ServerHandshake(token: token, hello: server)
    #expect(code { _ = try s.receive(CBOREncoder().encode(Opening())) } == .mismatch)
  }

  @Test func clustersMustBeEqualWhereBothAreKnown() throws {
    var (a, b) = (client, server)
    a.cluster = .random()
    var alone = ServerHandshake(token: token, hello: b)
    var c = ClientHandshake(token: token, hello: a)
    _ = try alone.receive(c.start())
    b.cluster = .random()
    var s = ServerHandshake(token: token, hello: b)
    c = ClientHandshake(token: token, hello: a)
    #expect(code { _ = try s.receive(c.start()) } == .mismatch)
    b.cluster = a.cluster
    s = ServerHandshake(token: token, hello: b)
    c = ClientHandshake(token: token, hello: a)
    _ = try upToProof(&c, &s)
  }

  @Test func garbageIsAViolation() throws {
    var c = ClientHandshake(token: token, hello: client)
    let opening = c.start()
    var wrongMagic = try Handshake.decode(Handshake.ClientOpening.self, from: opening, expecting: "")
    wrongMagic.magic = "manta"
    var shortNonce = wrongMagic
    (shortNonce.magic, shortNonce.nonce) = ("mobula", [1, 2, 3])
    var longName = shortNonce
    (longName.nonce, longName.hello.name) = (randomBytes(32), String(repeating: "x", count: 4096))
    let frames: [[UInt8]] = [
      [], [0], Array("GET / HTTP/1.1".utf8), opening.dropLast(), opening + [0], Handshake.encode(wrongMagic),
      Handshake.encode(shortNonce), Handshake.encode(longName),
    ]
    // A server says no magic word: to a client, that frame is only a hello.
    let toClients = frames.filter { $0 != Handshake.encode(wrongMagic) }
    for frame in frames {
      var s = ServerHandshake(token: token, hello: server)
      #expect(code { _ = try s.receive(frame) } == .protocolViolation)
      var s2 = ServerHandshake(token: token, hello: server)
      _ = try s2.receive(opening)
      #expect(code { _ = try s2.receive(frame) } == .protocolViolation)
    }
    for frame in toClients {
      var c2 = ClientHandshake(token: token, hello: client)
      _ = c2.start()
      #expect(code { _ = try c2.receive(frame) } == .protocolViolation)
    }
  }

  @Test func framesAreShort() throws {
    var host = client
    host.name = String(repeating: "n", count: 255)
    (host.cluster, host.host, host.build) = (.random(), .random(), String(repeating: "0", count: 64))
    var c = ClientHandshake(token: token, hello: host)
    #expect(c.start().count <= 1024)
  }
}
