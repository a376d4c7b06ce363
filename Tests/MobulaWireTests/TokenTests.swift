import Glibc
import MobulaCore
import Testing

@testable import MobulaWire

/// Tokens that are made from others. Expected keys were computed by Python's `hmac`, over claims that another CBOR encoder
/// wrote.
@Suite struct TokenTests {
  let cluster = try! ClusterToken("the-token-of-the-golden-bytes")

  @Test func keysFollowFromTheClaims() throws {
    let viewer = try cluster.narrowed(TokenClaims(role: .viewer, expires: 1_798_761_600, name: "ci"))
    #expect(
      hexadecimal(viewer.secrets[0].links[0]) == "a364726f6c656676696577657267657870697265731a6b36ec80646e616d65626369")
    #expect(hexadecimal(viewer.secrets[0].key) == "85cb8b0c17199e6867ffc815393883e678f8d43c4ec973df1f8d91ebc11e09df")
    let worker = try cluster.ofJob(JobID(7))
    #expect(hexadecimal(worker.secrets[0].key) == "26996eecfe8ec6ac7abf5f1db34916d2feccd57884bed7ae909f48aef4adfa73")
    #expect(
      worker.text
        == "mobula1.824aa164726f6c6563706f6452a264726f6c6566776f726b6572636a6f6207.26996eecfe8ec6ac7abf5f1db34916d2feccd57884bed7ae909f48aef4adfa73"
    )
    #expect(hexadecimal(cluster.secrets[0].hint) == "d49c")
    // A pod makes the same token of a job from its own.
    let pod = try cluster.narrowed(TokenClaims(role: .pod))
    #expect(try pod.ofJob(JobID(7)).text == worker.text)
    // Whoever has a key further up finds it from the claims.
    for above in [cluster, pod] { #expect(above.secrets[0].key(for: worker.secrets[0].links) == worker.secrets[0].key) }
    #expect(viewer.secrets[0].key(for: worker.secrets[0].links) == nil)
    #expect(worker.secrets[0].key(for: pod.secrets[0].links) == nil)
  }

  @Test func textsAreReadBack() throws {
    for token in [cluster, try cluster.ofJob(JobID(7)), try cluster.narrowed(TokenClaims(role: .tool, name: "zwölf"))] {
      let read = try ClusterToken(token.text + "\n")
      #expect(read.secrets == token.secrets)
      #expect(try read.authority() == token.authority())
    }
    let authority = try ClusterToken(cluster.ofJob(JobID(7)).text).authority()
    #expect(authority.role == .worker && authority.job == JobID(7) && authority.expires == nil)
    #expect(try cluster.authority().role == nil)
  }

  @Test(arguments: [
    "mobula1.", "mobula1..", "mobula1.00.00",
    "mobula1.81.85cb8b0c17199e6867ffc815393883e678f8d43c4ec973df1f8d91ebc11e09df",
    // No claims at all, which would be a cluster token under another name.
    "mobula1.80.85cb8b0c17199e6867ffc815393883e678f8d43c4ec973df1f8d91ebc11e09df",
    // A short key.
    "mobula1.814aa164726f6c6563706f64.85cb8b0c",
    // An odd digit, and a capital one.
    "mobula1.814aa164726f6c6563706f6.85cb8b0c17199e6867ffc815393883e678f8d43c4ec973df1f8d91ebc11e09df",
    "mobula1.814AA164726f6c6563706f64.85cb8b0c17199e6867ffc815393883e678f8d43c4ec973df1f8d91ebc11e09df",
  ])
  func textsThatAreNoTokensAreRefused(_ text: String) {
    #expect(throws: MobulaError.self) { try ClusterToken(text) }
  }

  /// No step gives more than the one before had.
  @Test func rightsOnlyShrink() throws {
    func code(_ steps: [TokenClaims]) -> MobulaError.Code? {
      do {
        _ = try steps.reduce(cluster) { try $0.narrowed($1) }
        return nil
      } catch { return (error as? MobulaError)?.code }
    }
    let job = JobID(7)
    let worker = TokenClaims(role: .worker, job: job)
    for steps: [TokenClaims] in [
      [.init(role: .pod), worker], [worker], [.init(role: .driver), .init(role: .viewer)],
      [.init(role: .tool), .init(role: .viewer)], [.init(role: .viewer), .init(role: .viewer, name: "narrower")],
      [.init(role: .pod), worker, .init(role: .worker, job: job, expires: 5)],
    ] { #expect(code(steps) == nil, "\(steps)") }
    for steps: [TokenClaims] in [
      [.init(role: .viewer), .init(role: .tool)], [.init(role: .viewer), .init(role: .driver)],
      [.init(role: .driver), .init(role: .pod)], [.init(role: .driver), worker], [worker, .init(role: .viewer)],
      [worker, .init(role: .pod)], [worker, .init(role: .worker, job: JobID(8))], [worker, .init(role: .worker)],
      [.init(role: .worker)], [.init(role: .viewer, job: job)],
    ] { #expect(code(steps) == .denied, "\(steps)") }
    let long = TokenClaims(role: .viewer, name: String(repeating: "x", count: 65))
    #expect(code([long]) == .invalidArgument)
    #expect(code(Array(repeating: .init(role: .viewer), count: 4)) == nil)
    #expect(code(Array(repeating: .init(role: .viewer), count: 5)) == .invalidArgument)
  }

  @Test func theEarliestExpiryCounts() throws {
    let token = try cluster.narrowed(TokenClaims(role: .viewer, expires: 50))
      .narrowed(TokenClaims(role: .viewer, expires: 90))
    let authority = try token.authority()
    #expect(authority.expires == 50)
    try authority.check(at: 49)
    let over = #expect(throws: MobulaError.self) { try authority.check(at: 50) }
    #expect(over?.code == .denied)
    #expect(over?.message.contains("expired at 1970-01-01T00:00:50Z") == true)
  }

  @Test func neverShowsItsKey() throws {
    let token = try cluster.narrowed(TokenClaims(role: .viewer))
    var dumped = ""
    dump(token, to: &dumped)
    for text in ["\(token)", String(reflecting: token), dumped] {
      #expect(!text.contains(hexadecimal(token.secrets[0].key)) && !text.contains("golden"))
    }
  }

  // MARK: Files

  @Test func aFileIsFollowed() async throws {
    try await withFolder { folder in
      let (path, copy) = (folder + "/token", folder + "/copy")
      try cluster.write(file: path)
      let token = try ClusterToken.following(path, copies: [copy])
      let pod = try token.narrowed(TokenClaims(role: .pod))
      #expect(token.secrets == cluster.secrets && !token.isRotating)
      let rotated = try token.rotated()
      try token.replace(with: rotated.text)
      #expect(token.secrets.map(\.text) == rotated.secrets.map(\.text) && token.secrets.count == 2)
      #expect(token.secrets[1] == cluster.secrets[0])
      let pods = try cluster.narrowed(TokenClaims(role: .pod))
      #expect(pod.secrets.count == 2 && pod.secrets[1] == pods.secrets[0])
      for file in [path, copy] {
        var information = stat()
        #expect(stat(file, &information) == 0 && information.st_mode & 0o7777 == 0o600)
        #expect(try ClusterToken.read(file: file).text == rotated.text)
      }
      // A third one has no place, and a stranger's is none.
      #expect(await error { _ = try token.rotated() }.code == .alreadyExists)
      #expect(await error { try token.replace(with: ClusterToken.random().text) }.code == .denied)
      #expect(await error { try token.replace(with: try cluster.ofJob(JobID(1)).text) }.code == .invalidArgument)
      #expect(await error { try pod.replace(with: rotated.text) }.code == .invalidArgument)
      let last = try token.finishingRotation()
      try token.replace(with: last.text)
      #expect(token.secrets == [rotated.secrets[0]])
      #expect(await error { _ = try token.finishingRotation() }.code == .notFound)
      // While the file can't be read, what was in it counts.
      unlink(path)
      #expect(token.secrets == [rotated.secrets[0]])
      let file = try #require(fopen(path, "w"))
      fputs("no token\n", file)
      fclose(file)
      #expect(token.secrets == [rotated.secrets[0]])
    }
  }

  @Test func aFileHasAtMostTwoTokens() async throws {
    try await withFolder { folder in
      let path = folder + "/token"
      let file = try #require(fopen(path, "w"))
      for _ in 0..<3 { fputs(ClusterToken.random().text + "\n", file) }
      fclose(file)
      #expect(await error { _ = try ClusterToken.read(file: path) }.code == .invalidArgument)
    }
  }
}
