import FoundationEssentials
import Glibc
import MobulaCore
import MobulaWire
import Testing

/// `mobula token`, and what its tokens do at a cluster that runs.
@Suite struct TokenCommandTests {
  private func mobula(_ arguments: String..., input: ChildProcess.Stream = .null) async throws -> Finished {
    try await run(Products.mobula, arguments, input: input)
  }

  @Test func tokensAreMadeAndShown() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let (cluster, viewer) = (folder.path + "/cluster", folder.path + "/viewer")
    try ClusterToken.random().write(file: cluster)
    let made = try await mobula(
      "token", "create", "--from", cluster, "--role", "viewer", "--expires", "30d", "--name", "ci", "-o", viewer)
    #expect(made.status.isSuccess && made.output == "", "\(made)")
    var information = stat()
    #expect(stat(viewer, &information) == 0 && information.st_mode & 0o7777 == 0o600)
    let shown = try await mobula("token", "show", viewer)
    #expect(shown.output.contains("role     viewer") && shown.output.contains("name     ci"), "\(shown)")
    let authority = try ClusterToken.read(file: viewer).authority()
    let left = try #require(authority.expires) - Int64(time(nil))
    #expect(authority.role == .viewer && 29 * 86_400...30 * 86_400 ~= left)
    let json = try await mobula("token", "show", viewer, "--json")
    func compact(_ finished: Finished) -> String { finished.output.filter { !$0.isWhitespace } }
    #expect(compact(json).contains("\"role\":\"viewer\"") && compact(json).contains("\"hasExpired\":false"), "\(json)")
    // Never the key, which is the text's last part.
    let key = try String(decoding: Data(contentsOf: URL(filePath: viewer)), as: UTF8.self).split(separator: ".").last!
    #expect(!shown.output.contains(key.prefix(32)) && !json.output.contains(key.prefix(32)))

    let worker = try await mobula("token", "create", "--from", cluster, "--role", "worker", "--job", "7", "--json")
    #expect(compact(worker).contains("\"job\":7") && compact(worker).contains("\"token\":\"mobula1."), "\(worker)")
    let own = try await mobula("token", "show", cluster)
    #expect(own.output.contains("role     cluster"), "\(own)")
    let wider = try await mobula("token", "create", "--from", viewer, "--role", "tool")
    #expect(wider.status == .status(1) && wider.errors.contains("take the cluster token"), "\(wider)")
    let taken = try await mobula("token", "create", "--from", cluster, "--role", "viewer", "-o", viewer)
    #expect(taken.status == .status(1) && taken.errors.contains("is there already"), "\(taken)")
  }

  @Test(arguments: [
    ["--role", "king"], ["--role", "worker"], ["--role", "viewer", "--job", "1"], ["--role", "worker", "--job", "0"],
    ["--role", "viewer", "--expires", "5"], ["--role", "viewer", "--expires", "0d"],
    ["--role", "viewer", "--expires", "-1d"], ["--role", "viewer", "--expires", "99999999w"],
    ["--role", "viewer", "--name", ""], ["--role", "viewer", "--from", ""],
  ])
  func oddOptionsAreRefused(_ options: [String]) async throws {
    let finished = try await run(Products.mobula, ["token", "create"] + options)
    #expect(finished.status == .status(64) && finished.output == "", "\(finished)")
  }

  @Test func aViewerSeesAndChangesNothing() async throws {
    try await withCluster { cluster in
      let file = cluster.folder.path + "/model"
      try Data("a model".utf8).write(to: URL(filePath: file))
      #expect(try await cluster.mobula("put", file).status.isSuccess)
      let viewer = cluster.folder.path + "/viewer"
      #expect(try await cluster.mobula("token", "create", "--role", "viewer", "-o", viewer).status.isSuccess)
      // From anywhere: no directory of a host is used.
      let remote = ["--address", cluster.head, "--token-file", viewer, "--directory", "/nowhere"]
      let status = try await run(Products.mobula, ["status"] + remote)
      #expect(status.status.isSuccess && status.output.contains("h0"), "\(status)")
      let listed = try await run(Products.mobula, ["ls"] + remote)
      #expect(listed.output.contains("model"), "\(listed)")
      let json = try await run(Products.mobula, ["ls", "--json"] + remote)
      #expect(json.output.contains("\"model\""), "\(json)")

      let over = cluster.folder.path + "/over"
      let parent = try ClusterToken.read(file: cluster.directory(0) + "/token")
      try parent.narrowed(TokenClaims(role: .viewer, expires: Int64(time(nil)) - 5, name: "old")).write(file: over)
      let late = try await run(Products.mobula, ["status", "--address", cluster.head, "--token-file", over])
      #expect(late.status == .status(1) && late.errors.contains("A viewer's token (old) expired at"), "\(late)")
      let pod = cluster.folder.path + "/pod"
      try parent.narrowed(TokenClaims(role: .pod)).write(file: pod)
      let other = try await run(Products.mobula, ["ls", "--address", cluster.head, "--token-file", pod])
      #expect(
        other.status == .status(1) && other.errors.contains("A pod's token may not call \"head.status\""), "\(other)")
      let stranger = cluster.folder.path + "/stranger"
      try ClusterToken.random().narrowed(TokenClaims(role: .viewer)).write(file: stranger)
      let refused = try await run(Products.mobula, ["status", "--address", cluster.head, "--token-file", stranger])
      #expect(refused.status == .status(1) && refused.errors.contains("The token was refused"), "\(refused)")
      // A viewer's token is none to join with.
      let joining = try await run(
        Products.mobula, ["start", "--address", cluster.head, "--token-file", viewer, "--name", "forged"],
        environment: cluster.environment(7), within: .seconds(60))
      #expect(!joining.status.isSuccess && joining.errors.contains("a host needs the cluster's"), "\(joining)")
    }
  }

  /// The token is replaced under a cluster that runs: nothing is restarted, and in the end only the new one is taken.
  @Test func theTokenIsRotatedWhileTheClusterRuns() async throws {
    try await withCluster(others: 1) { cluster in
      let file = cluster.folder.path + "/model"
      let bytes = Data((0..<3_000_001).map { UInt8(truncatingIfNeeded: $0 &* 7 >> 2) })
      try bytes.write(to: URL(filePath: file))
      let old = cluster.folder.path + "/old"
      try ClusterToken.read(file: cluster.directory(0) + "/token").write(file: old)
      let rotated = try await cluster.mobula("token", "rotate")
      #expect(rotated.status.isSuccess && rotated.output.contains("these hosts use: h0, h1"), "\(rotated)")
      let shown = try await cluster.mobula("token", "show", host: 1)
      #expect(shown.output.contains("the older one"), "\(shown)")
      // Through both hosts, by new connections among them.
      #expect(try await cluster.mobula("put", file).status.isSuccess)
      let copy = cluster.folder.path + "/copy"
      let got = try await cluster.mobula("get", "model", "-o", copy, host: 1)
      #expect(got.status.isSuccess, "\(got)")
      #expect(try Data(contentsOf: URL(filePath: copy)) == bytes)
      let before = try await run(Products.mobula, ["status", "--address", cluster.head, "--token-file", old])
      #expect(before.status.isSuccess, "\(before)")
      let finished = try await cluster.mobula("token", "rotate", "--finish")
      #expect(finished.status.isSuccess, "\(finished)")
      let after = try await run(Products.mobula, ["status", "--address", cluster.head, "--token-file", old])
      #expect(after.status == .status(1) && after.errors.contains("The cluster token was refused"), "\(after)")
      // In the state directories, too, for the next start.
      let tokens = try [0, 1].flatMap { host in
        try ["/token", "/state/token"].map { try Data(contentsOf: URL(filePath: cluster.directory(host) + $0)) }
      }
      #expect(Set(tokens).count == 1)
      let again = cluster.folder.path + "/again"
      try Data(bytes.reversed()).write(to: URL(filePath: again))
      #expect(try await cluster.mobula("put", again, host: 1).status.isSuccess)
      #expect(try await cluster.mobula("get", "again", "-o", copy).status.isSuccess)
      #expect(try Data(contentsOf: URL(filePath: copy)) == Data(bytes.reversed()))
      let run = try await MobulaToolTests.run(
        Products.testApp, [],
        environment: cluster.environment(0).merging([
          "SCENARIO": "actors", "MARKER": cluster.folder.path + "/marker",
        ]) { $1 }, within: .seconds(120))
      #expect(run.status.isSuccess, "\(run)")
      let nothing = try await cluster.mobula("token", "rotate", "--finish")
      #expect(nothing.status == .status(1) && nothing.errors.contains("none to be dropped"), "\(nothing)")
    }
  }

  /// Other certificates, from another CA, under a cluster that runs: all that is new uses them.
  @Test func certificatesAreReplacedWhileTheClusterRuns() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    for (name, cluster) in [("one", "lab"), ("two", "lab")] {
      let made = try await mobula(
        "certificates", "create", "--cluster", cluster, "--directory", folder.path + "/" + name)
      try #require(made.status.isSuccess, "\(made)")
    }
    try await withCluster(["--tls", folder.path + "/one"]) { cluster in
      let token = cluster.directory(0) + "/token"
      func status(_ tls: String) async throws -> Finished {
        try await run(
          Products.mobula,
          ["status", "--address", cluster.head, "--token-file", token, "--tls", folder.path + "/" + tls])
      }
      #expect(try await status("one").status.isSuccess)
      #expect(try await !status("two").status.isSuccess)
      // Its CA is another, which would part this host from all others.
      let refused = try await cluster.mobula("certificates", "install", folder.path + "/two")
      #expect(refused.status == .status(1) && refused.errors.contains("--replace-ca"), "\(refused)")
      #expect(try await status("one").status.isSuccess)
      let installed = try await cluster.mobula("certificates", "install", folder.path + "/two", "--replace-ca")
      #expect(installed.status.isSuccess, "\(installed)")
      let new = try await status("two")
      #expect(new.status.isSuccess && new.output.contains("connected"), "\(new)")
      #expect(try await !status("one").status.isSuccess)
      #expect(try await cluster.mobula("status").status.isSuccess)
      let missing = try await cluster.mobula("certificates", "install", folder.path)
      #expect(missing.status == .status(1), "\(missing)")
      #expect(try await status("two").status.isSuccess)
    }
  }
}
