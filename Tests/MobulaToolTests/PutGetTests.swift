import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaTool

/// The sequences of the README: names that are taken, folders, prefixes, what is said of them.
@Suite struct PutGetTests {
  private func write(_ text: String, _ path: String) throws { try Data(text.utf8).write(to: URL(filePath: path)) }

  private func text(_ path: String) throws -> String {
    String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
  }

  /// Whoever loses a race for a name with the same content has what he wants.
  @Test func theSameAtTheSameTime() async throws {
    try await withCluster { cluster in
      let file = cluster.folder.path + "/model.bin"
      try Data(repeating: 5, count: 20_000_000).write(to: URL(filePath: file))
      let all = try await withThrowingTaskGroup(of: Finished.self) { group in
        for _ in 0..<4 { group.addTask { try await cluster.mobula("put", file, "-q") } }
        return try await group.reduce(into: []) { $0.append($1) }
      }
      #expect(all.allSatisfy { $0.status.isSuccess } && Set(all.map(\.output)).count == 1, "\(all)")
      for name in ["s3://models/a", "S3://models/a", "held/x"] {
        let refused = try await cluster.mobula("put", file, "--name", name)
        #expect(refused.status == .status(64) && refused.errors.contains(name), "\(refused)")
      }
    }
  }

  @Test func namesThatAreTaken() async throws {
    try await withCluster { cluster in
      let file = cluster.folder.path + "/model.bin"
      try write("first", file)
      let put = try await cluster.mobula("put", file, "-q")
      #expect(put.status.isSuccess && ObjectID(put.output.filter { !$0.isNewline }) != nil, "\(put)")
      #expect(put.errors.isEmpty, "ids alone: \(put)")
      // The same content is no conflict, for put and broadcast alike, and is the same object.
      let again = try await cluster.mobula("put", file, "-q")
      #expect(again.output == put.output, "\(again)")
      let pushed = try await cluster.mobula("broadcast", file)
      #expect(pushed.status.isSuccess && pushed.output.hasPrefix(put.output.prefix(32)), "\(pushed)")

      for other in ["other", "other and longer"] {
        try write(other, file)
        let refused = try await cluster.mobula("put", file)
        #expect(refused.status == .status(1) && refused.errors.contains("--replace"), "\(refused)")
        let replaced = try await cluster.mobula("put", file, "--replace")
        #expect(replaced.status.isSuccess, "\(replaced)")
        #expect(try await cluster.mobula("get", "model.bin", "-o", file + ".back").status.isSuccess)
        #expect(try text(file + ".back") == other)
      }
    }
  }

  @Test func foldersAndPrefixes() async throws {
    try await withCluster { cluster in
      let folder = cluster.folder.path + "/model"
      mkdir(folder, 0o700)
      mkdir(folder + "/deep", 0o700)
      try write("a", folder + "/a")
      try write("b", folder + "/deep/b")
      try write("c", cluster.folder.path + "/c")
      symlink("..", folder + "/deep/circle")
      let put = try await cluster.mobula("put", folder + "/", cluster.folder.path + "/c")
      #expect(put.status.isSuccess && put.output.split(separator: "\n").count == 3, "\(put)")
      let got = try await cluster.mobula("get", "model/", "-o", cluster.folder.path + "/out")
      #expect(got.status.isSuccess, "\(got)")
      #expect(try text(cluster.folder.path + "/out/a") == "a")
      #expect(try text(cluster.folder.path + "/out/deep/b") == "b")
      // Never out of the folder.
      #expect(try await cluster.mobula("put", cluster.folder.path + "/c", "--name", "evil/../../up").status.isSuccess)
      let out = try await cluster.mobula("get", "evil/", "-o", cluster.folder.path + "/out")
      #expect(out.status == .status(1), "\(out)")
      let none = try await cluster.mobula("get", "nothing/", "-o", cluster.folder.path + "/out")
      #expect(none.status == .status(1) && none.errors.contains("nothing/"), "\(none)")
      let both = try await cluster.mobula("put", folder, "--name", "one")
      #expect(both.status == .status(64) && both.errors.contains("--name"), "\(both)")
    }
  }

  @Test func itemsOfPaths() throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    mkdir(folder.path + "/m", 0o700)
    try write("x", folder.path + "/m/x")
    func names(_ paths: [String], _ name: String?, below: Bool = false) throws -> [String] {
      try PutItem.all(paths, name: name, isBelowFolder: below).map(\.name)
    }
    #expect(try names([folder.path + "/m"], nil) == ["m/x"])
    #expect(try names([folder.path + "/m/."], nil) == ["m/x"])
    #expect(try names([folder.path + "/m/"], nil, below: true) == ["x"])
    #expect(try names([folder.path + "/m/"], "w/") == ["w/x"])
    #expect(try names(["a/b", "c"], "w/") == ["w/b", "w/c"])
    #expect(try names(["a/b"], "n") == ["n"])
    #expect(throws: MobulaError.self) { try names(["a", "b"], "n") }
    #expect(throws: MobulaError.self) { try names(["/"], nil) }
    // The second would take the place of the first.
    let twice = #expect(throws: MobulaError.self) { try names(["a/x", folder.path + "/m"], nil, below: true) }
    #expect(twice?.message.contains("a/x and \(folder.path)/m/x would both be called x") == true, "\(twice as Any)")
  }

  @Test func distances() {
    func distance(_ a: String, _ b: String) -> Int { CommandNames.distance(Array(a.utf8), Array(b.utf8)) }
    #expect(distance("status", "status") == 0)
    #expect(distance("status", "stauts") == 1)
    #expect(distance("ls", "") == 2)
    #expect(distance("fetch", "fech") == 1)
    #expect(CommandNames.problem(of: "put") == nil)
    #expect(CommandNames.problem(of: "--help") == nil)
  }

  @Test func mistypedOptions() {
    func problem(_ words: String...) -> String { OptionNames.problem(in: words) ?? "" }
    #expect(problem("get", "--otput", "z", "x").contains("'--otput'. Did you mean '--output'?"))
    #expect(problem("start", "--haed").contains("Did you mean '--head'?"))
    #expect(problem("host", "drain", "--timout=3", "b").contains("See 'mobula host drain --help'"))
    #expect(OptionNames.problem(in: ["get", "--output", "z"]) == nil)
    #expect(OptionNames.problem(in: ["get", "--", "--otput"]) == nil)
    #expect(OptionNames.problem(in: ["get", "--nothing-like-it"]) == nil)
  }

  /// What the command line alone shows to be wrong is said before anything is asked of anybody.
  @Test(arguments: [
    ["get", "", "-o", "x"], ["rm", ""], ["hold", "a", ""], ["put", "x", "s3:/b/k"], ["get", "s3://b", "-o", "x"],
    ["put", "x", "s3://b/k", "--s3-endpoint", "a:b:c"], ["fetch", "s3://b/k", "--s3-endpoint", "ftp://x"],
    ["put", "x", "--s3-endpoint", "http://a:1"], ["get", "x", "-o", "y", "--s3-endpoint", "http://a:1"],
    ["put", "x", "s3://b/k", "--name", "n"],
  ])
  func usageErrors(arguments: [String]) async throws {
    let finished = try await run(Products.mobula, arguments, environment: ["MOBULA_DIRECTORY": "/nowhere"])
    #expect(finished.status == .status(64) && finished.errors.hasPrefix("Error: "), "\(finished)")
  }

  @Test func removingAllBelow() async throws {
    try await withCluster { cluster in
      let folder = cluster.folder.path
      try FileManager.default.createDirectory(atPath: folder + "/m/n", withIntermediateDirectories: true)
      for name in ["m/a", "m/n/b", "c"] { try write(name, folder + "/" + name) }
      let put = try await cluster.mobula("put", folder + "/m/", folder + "/c")
      try #require(put.status.isSuccess, "\(put)")
      let removed = try await cluster.mobula("rm", "m/", "m/", "c", "c")
      #expect(removed.status.isSuccess && removed.output.split(separator: "\n").count == 3, "\(removed)")
      let again = try await cluster.mobula("rm", "m/")
      #expect(again.status == .status(1) && again.errors.contains("begins with m/"), "\(again)")
    }
  }
}
