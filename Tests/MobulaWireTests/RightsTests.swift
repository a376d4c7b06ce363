import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaWire

/// Who gets through a handshake with which token, and what they may call then.
@Suite struct RightsTests {
  let cluster = ClusterToken.random()
  let head = Hello(role: .head, name: "head", process: 1)
  let peer = Hello(role: .tool, name: "peer", process: 2)

  /// Both sides to the end.
  func agree(
    _ client: ClusterToken, with server: ClusterToken, from a: Hello? = nil, to b: Hello? = nil
  ) throws -> (client: Handshake.Session, server: Handshake.Session) {
    var c = ClientHandshake(token: client, hello: a ?? peer)
    var s = ServerHandshake(token: server, hello: b ?? head)
    guard case .send(let answer) = try s.receive(c.start()), case .send(let proof) = try c.receive(answer),
      case .sendAndDone(let last, _) = try s.receive(proof), case .done = try c.receive(last)
    else { throw Strange() }
    return (try #require(c.session), try #require(s.session))
  }

  func refusal(_ body: () throws -> Void) -> MobulaError? {
    do { try body() } catch { return error as? MobulaError }
    return nil
  }

  func old(_ hello: Hello) -> Hello {
    var hello = hello
    hello.newestWireVersion = nil
    return hello
  }

  @Test(
    arguments: [
      [], [.init(role: .viewer)], [.init(role: .tool, name: "x")], [.init(role: .driver)], [.init(role: .pod)],
      [.init(role: .pod), .init(role: .worker, job: JobID(7))], [.init(role: .viewer, expires: 1)],
    ] as [[TokenClaims]])
  func aServerKnowsWhatTheTokenAllows(_ steps: [TokenClaims]) throws {
    let token = try steps.reduce(cluster) { try $0.narrowed($1) }
    let (c, s) = try agree(token, with: cluster)
    #expect(try s.authority == token.authority())
    #expect(c.authority == .everything)
    #expect(s.version == 3 && c.version == 3 && !s.hasOldToken)
    #expect(s.sealingKey == c.sealingKey && s.sealingKey.count == 32)
    // The text alone is as good.
    #expect(try agree(ClusterToken(token.text), with: cluster).server.authority == s.authority)
  }

  /// A worker, and a pod, verify who has their token or one that was made from it, and nobody else.
  @Test func aServerWithLessVerifiesWhatWasMadeFromIts() throws {
    let (pod, job) = (try cluster.narrowed(TokenClaims(role: .pod)), try cluster.ofJob(JobID(7)))
    let brief = try ClusterToken(job.text).narrowed(TokenClaims(role: .worker, job: JobID(7), expires: 9))
    let server = try ClusterToken(job.text)
    #expect(try agree(job, with: server).server.authority.job == JobID(7))
    #expect(try agree(brief, with: server).server.authority.expires == 9)
    #expect(try agree(job, with: pod).server.authority.role == .worker)
    for stranger in [cluster, pod, try cluster.ofJob(JobID(8)), try cluster.narrowed(TokenClaims(role: .viewer))] {
      #expect(refusal { _ = try agree(stranger, with: server) }?.code == .unauthenticated)
    }
    // A token with these claims that somebody made from another key.
    let forged = try ClusterToken.random().ofJob(JobID(7))
    for server in [server, pod, cluster] {
      let refused = refusal { _ = try agree(forged, with: server) }
      #expect(refused?.code == .unauthenticated && refused?.message.contains("made from another cluster token") == true)
    }
  }

  @Test func aServerThatLacksTheTokenIsFoundOut() throws {
    let viewer = try cluster.narrowed(TokenClaims(role: .viewer))
    var c = ClientHandshake(token: viewer, hello: peer)
    var s = ServerHandshake(token: .random(), hello: head)
    guard case .send(let answer) = try s.receive(c.start()), case .send = try c.receive(answer) else { throw Strange() }
    let forged = Handshake.encode(Handshake.ServerReply(proof: randomBytes(32)))
    #expect(refusal { _ = try c.receive(forged) }?.code == .unauthenticated)
  }

  /// Claims that are changed on the way, or made up, lead to another key.
  @Test func changedClaimsAreNoticed() throws {
    let viewer = try cluster.narrowed(TokenClaims(role: .viewer, expires: 5))
    let wider: [[ByteString]?] = [
      nil, [], [ByteString(Handshake.encode(TokenClaims(role: .tool)))],
      [ByteString(Handshake.encode(TokenClaims(role: .viewer)))],
    ]
    for claims in wider {
      var c = ClientHandshake(token: viewer, hello: peer)
      var s = ServerHandshake(token: cluster, hello: head)
      var opening = try Handshake.decode(Handshake.ClientOpening.self, from: c.start(), expecting: "")
      opening.hello.claims = claims
      guard case .send(let answer) = try s.receive(Handshake.encode(opening)),
        case .send(let proof) = try c.receive(answer)
      else { throw Strange() }
      #expect(refusal { _ = try s.receive(proof) }?.code == .unauthenticated)
    }
  }

  /// A holder of a viewer's key who says what is more, with the right key for it: claims are read in order, and none
  /// gives more than the one before.
  @Test func claimsThatWidenAreRefusedThoughTheirKeyIsRight() throws {
    var secret = try cluster.narrowed(TokenClaims(role: .viewer)).secrets[0]
    for claims in [TokenClaims(role: .tool), TokenClaims(role: .worker, job: JobID(1))] {
      let link = Handshake.encode(claims)
      secret.key = try #require(secret.key(for: secret.links + [link]))
      secret.links.append(link)
      let error = refusal { _ = try TokenSecret.authority(of: secret.links) }
      #expect(error?.code == .denied)
    }
  }

  @Test func claimsThatNobodyKnowsAreRefused() throws {
    struct Newer: Codable {
      var role = "viewer"
      var onMondays = true
    }
    let link = Handshake.encode(Newer())
    #expect(refusal { _ = try TokenSecret.authority(of: [link]) }?.code == .denied)
    for bytes: [UInt8] in [[], [0xFF], [0xA0], Array("viewer".utf8)] {
      #expect(refusal { _ = try TokenSecret.authority(of: [bytes]) }?.code == .denied)
    }
  }

  @Test func longClaimsAreAViolation() throws {
    for claims: [ByteString] in [
      Array(repeating: ByteString([0xA0]), count: 5), [ByteString([UInt8](repeating: 0, count: 321))],
    ] {
      var opening = Handshake.ClientOpening(magic: "mobula", hello: peer, nonce: randomBytes(32))
      opening.hello.claims = claims
      var s = ServerHandshake(token: cluster, hello: head)
      #expect(refusal { _ = try s.receive(Handshake.encode(opening)) }?.code == .protocolViolation)
    }
  }

  // MARK: The wire version before

  // As Python wrote them: `Tests/Trials/lib/wire.py` and `hmac`.
  static let oldOpening = bytes(
    "a3656d61676963666d6f62756c616568656c6c6fa66b7769726556657273696f6e0264726f6c6566647269766572646e616d65636164616b696e6361726e6174696f6e006565706f6368006770726f6365737307656e6f6e63655820000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
  )
  static let oldAnswer = bytes(
    "a26568656c6c6fa76b7769726556657273696f6e0264726f6c656468656164646e616d6563626f6267636c757374657250000102030405060708090a0b0c0d0e0f6b696e6361726e6174696f6e006565706f6368036770726f6365737308656e6f6e636558206465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283"
  )
  static let golden = try! ClusterToken("the-token-of-the-golden-bytes")

  @Test func proofsOfTheVersionBeforeAreAsTheyWere() {
    let transcript = Handshake.Transcript(
      clientNonce: Array(0..<32), serverNonce: Array(100..<132), clientOpening: Self.oldOpening,
      serverOpening: Self.oldAnswer)
    let key = Array("the-token-of-the-golden-bytes".utf8)
    #expect(
      hexadecimal(transcript.proof(Handshake.clientLabel, key))
        == "6e35875a716160c4382be7df797dfb0fcea4a371cf058159b46c02a8fa5639b7")
    #expect(
      hexadecimal(transcript.proof(Handshake.serverLabel, key))
        == "5fbd1610fd9a50a13ed1b8eabf38efe213b9245c402733048fd957feeda3c2fc")
  }

  /// Bytes that a process of the version before sends are understood, and it understands the answer: the fields that it
  /// looks for are there, with the version that it speaks.
  @Test func aClientOfTheVersionBeforeIsServed() throws {
    var s = ServerHandshake(token: Self.golden, hello: head)
    guard case .send(let answer) = try s.receive(Self.oldOpening) else { throw Strange() }
    struct OldReply: Codable {
      struct OldHello: Codable {
        var wireVersion: Int
        var role: String
        var name: String
        var incarnation: UInt64
        var epoch: UInt64
        var process: Int32
      }
      var hello: OldHello
      var nonce: [UInt8]
    }
    let reply = try CBORDecoder().decode(OldReply.self, from: answer)
    #expect(reply.hello.wireVersion == 2 && reply.hello.role == "head")
    let transcript = Handshake.Transcript(
      clientNonce: Array(0..<32), serverNonce: reply.nonce, clientOpening: Self.oldOpening, serverOpening: answer)
    let key = Array("the-token-of-the-golden-bytes".utf8)
    let proof = Handshake.encode(Handshake.ClientProof(proof: transcript.proof(Handshake.clientLabel, key)))
    guard case .sendAndDone(let last, let peer) = try s.receive(proof) else { throw Strange() }
    #expect(
      try CBORDecoder().decode(Handshake.ServerReply.self, from: last).proof
        == transcript.proof(Handshake.serverLabel, key))
    #expect(peer.name == "ada" && peer.newestWireVersion == nil)
    #expect(s.session?.version == 2 && s.session?.authority == .everything)
  }

  @Test func aServerOfTheVersionBeforeIsCalled() throws {
    var c = ClientHandshake(token: Self.golden, hello: peer)
    struct OldOpening: Codable {
      struct Part: Codable { var wireVersion: Int }
      var magic: String
      var hello: Part
      var nonce: [UInt8]
    }
    let opening = c.start()
    let read = try CBORDecoder().decode(OldOpening.self, from: opening)
    // A build of that version refuses every other number here.
    #expect(read.magic == "mobula" && read.hello.wireVersion == 2)
    guard case .send(let frame) = try c.receive(Self.oldAnswer) else { throw Strange() }
    let key = Array("the-token-of-the-golden-bytes".utf8)
    let transcript = Handshake.Transcript(
      clientNonce: read.nonce, serverNonce: Array(100..<132), clientOpening: opening, serverOpening: Self.oldAnswer)
    #expect(
      try CBORDecoder().decode(Handshake.ClientProof.self, from: frame).proof
        == transcript.proof(Handshake.clientLabel, key))
    let last = Handshake.encode(Handshake.ServerReply(proof: transcript.proof(Handshake.serverLabel, key)))
    guard case .done(let server) = try c.receive(last) else { throw Strange() }
    #expect(server.name == "bob" && c.session?.version == 2)
  }

  /// A process that has less than the cluster token shows a peer that knows nothing else the cluster token, if it can.
  @Test func theClusterTokenIsForPeersThatKnowNoOther() async throws {
    try await withFolder { folder in
      let file = folder + "/token"
      try cluster.write(file: file)
      let following = try ClusterToken.following(file).narrowed(TokenClaims(role: .driver))
      let worker = try ClusterToken(cluster.ofJob(JobID(7)).text)
      for token in [following, worker.withElder(file)] {
        #expect(try agree(token, with: cluster, to: old(head)).server.authority == .everything)
        // And takes it from them.
        #expect(try agree(cluster, with: token, from: old(peer)).server.authority == .everything)
      }
      let alone = refusal { _ = try agree(worker, with: cluster, to: old(head)) }
      #expect(alone?.code == .mismatch && alone?.message.contains("upgrade that one first") == true)
      #expect(refusal { _ = try agree(cluster, with: worker, from: old(peer)) }?.code == .unauthenticated)
    }
  }

  // MARK: Rotation

  @Test func twoTokensAreTakenWhileOneTakesThePlaceOfTheOther() throws {
    let both = try cluster.rotated()
    let new = try both.finishingRotation()
    // Each side may have the one, both, or the other.
    for (client, server, isOld) in [
      (cluster, cluster, false), (cluster, both, true), (both, cluster, false), (both, both, false),
      (both, new, false), (new, both, false), (new, new, false),
    ] {
      #expect(try agree(client, with: server).server.hasOldToken == isOld)
      // Tokens that were made from it go with it.
      let viewer = try client.narrowed(TokenClaims(role: .viewer)).newest
      if !(client.isRotating && server.text == cluster.text) {
        #expect(try agree(viewer, with: server).server.authority.role == .viewer)
      }
    }
    for (client, server) in [(cluster, new), (new, cluster)] {
      #expect(refusal { _ = try agree(client, with: server) }?.code == .unauthenticated)
    }
  }

  // MARK: Methods

  /// The names of all methods in the sources.
  static func methods() throws -> Set<String> {
    let sources = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "Sources")
    var names: Set<String> = []
    for file in try FileManager.default.subpathsOfDirectory(atPath: sources.path()) where file.hasSuffix(".swift") {
      let text = String(decoding: try Data(contentsOf: sources.appending(path: file)), as: UTF8.self)
      for match in text.matches(of: /RPC(?:Method|StreamMethod|Notice)<[^(]*>\(\s*"([^"\\]+)"\)/) {
        names.insert(String(match.1))
      }
    }
    return names
  }

  @Test func everyMethodSaysWhoMayCallIt() throws {
    let methods = try Self.methods()
    #expect(methods.count > 50)
    #expect(methods.subtracting(MethodRights.roles.keys) == [])
    #expect(Set(MethodRights.roles.keys).subtracting(methods) == [])
  }

  @Test func refusalsNameRoleAndNeed() throws {
    let worker = try cluster.ofJob(JobID(7)).authority()
    let error = refusal { try MethodRights.check("head.registerHost", worker) }
    #expect(error?.code == .denied)
    #expect(
      error?.message == "A worker's token (job 7) may not call \"head.registerHost\": that needs the cluster token.")
    let list = refusal { try MethodRights.check("head.list", worker) }
    #expect(
      list?.message
        == "A worker's token (job 7) may not call \"head.list\": that needs a driver's or tool's or viewer's token, or the cluster's."
    )
    #expect(refusal { try MethodRights.check("head.list", .everything) } == nil)
    // What is not in the table is for the cluster token alone.
    #expect(refusal { try MethodRights.check("some.thing", worker) }?.code == .denied)
  }

  /// What must never be given to anybody by a slip in the table.
  @Test func onlyTheClusterTokenIsAHost() throws {
    for role in TokenRole.all {
      let claims = TokenClaims(role: role, job: role == .worker ? JobID(1) : nil)
      let authority = try cluster.narrowed(claims).authority()
      for method in [
        "head.registerHost", "head.registerMore", "head.holdsChanged", "head.replicasChanged", "head.driverEnded",
        "head.locate", "head.rotateToken", "host.drop",
      ] { #expect(refusal { try MethodRights.check(method, authority) }?.code == .denied, "\(role) \(method)") }
      #expect((refusal { try MethodRights.check("head.registerPod", authority) } == nil) == (role == .pod))
      #expect((refusal { try MethodRights.check("head.list", authority) } == nil) == ![.pod, .worker].contains(role))
      #expect((refusal { try MethodRights.check("head.startJob", authority) } == nil) == (role == .driver))
    }
  }
}

/// The bytes that hexadecimal digits are.
func bytes(_ digits: String) -> [UInt8] {
  var (bytes, rest) = ([UInt8](), digits[...])
  while rest.count > 1 {
    bytes.append(UInt8(rest.prefix(2), radix: 16)!)
    rest = rest.dropFirst(2)
  }
  return bytes
}
