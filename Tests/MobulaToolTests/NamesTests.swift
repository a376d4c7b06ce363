import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// Names of any valid UTF-8, in a cluster of real processes.
@Suite struct NamesTests {
  private struct Listing: Decodable {
    var object: String
    var names: [Name]
  }

  /// What has made trouble somewhere, and some at random.
  private static let names: [Name] = {
    var generator = SeededGenerator(seed: 15)
    let letters: [Unicode.Scalar] = [
      "a", "e", "\u{301}", "\u{e9}", "/", " ", "\n", "\u{202E}", "\u{1B}", "\u{AC00}", "\u{1F469}",
    ]
    var names: [Name] = [
      "caf\u{e9}", "cafe\u{301}", "\u{AC00}", "\u{1100}\u{1161}", "K", "\u{212A}", "a\nb", "\u{301}", "a/\u{301}b",
      "\"quoted\\\"", "\u{202E}gpj.exe", "\u{1B}[31mred", " ", "\u{FFFE}", "\u{10FFFF}",
      Name(String(repeating: "x", count: 255)),
      Name(String(repeating: "\u{1F469}", count: Name.longest / 4)),
    ]
    while names.count < 24 {
      let count = Int.random(in: 1...6, using: &generator)
      let name =
        "r" + String(String.UnicodeScalarView((0..<count).map { _ in letters.randomElement(using: &generator)! }))
      if !names.contains(Name(name)) { names.append(Name(name)) }
    }
    return names
  }()

  /// Each name has its own bytes, whatever other names look like, also after the head and the host were killed.
  @Test func theySurviveEverything() async throws {
    try await withCluster(others: 1) { cluster in
      let file = cluster.folder.path + "/in"
      for (index, name) in Self.names.enumerated() {
        try Data("object \(index)".utf8).write(to: URL(filePath: file))
        let put = try await cluster.mobula("put", file, "--name", name.text)
        #expect(put.status.isSuccess, "\(index): \(put)")
      }
      try await expectAll(cluster, host: 1)
      for process in ["head", "host"] {
        let found = try Self.processes(of: cluster).filter { $0.command.contains("\0\(process)\0") }
        try #require(!found.isEmpty, "no \(process)")
        for one in found { kill(one.pid, SIGKILL) }
        var shown: [Listing] = []
        for _ in 0..<120 where shown.count != Self.names.count {
          try await Task.sleep(for: .milliseconds(250))
          let listed = try await cluster.mobula("ls", "--json")
          shown = (try? JSONDecoder().decode([Listing].self, from: Data(listed.output.utf8))) ?? []
        }
        try await expectAll(cluster, host: 0)
      }
      let broadcast = try await cluster.mobula("broadcast", Self.names[1].text)
      #expect(broadcast.status.isSuccess, "\(broadcast)")
      // Of two that look alike one goes, and the other stays.
      let removed = try await cluster.mobula("rm", Self.names[0].text)
      #expect(removed.status.isSuccess, "\(removed)")
      let gone = try await cluster.mobula("get", Self.names[0].text, "-o", file)
      #expect(gone.status == .status(1), "\(gone)")
      try await expect(1, in: cluster, host: 0)
    }
  }

  /// Keys of S3 likewise, which come in pages, some in a form of their own.
  @Test func keysOfS3Too() async throws {
    let server = try ObjectServer()
    defer { server.stop() }
    let keys =
      Self.names.filter { $0.utf8.count <= 1024 && !$0.hasSuffix("/") && !$0.hasPrefix("/") } + ["a\u{1}b", "%41+ &<"]
    for (index, key) in keys.enumerated() {
      server.put("/b/n/\(key.text)", .init(id: nil, bytes: Array("key \(index)".utf8), etag: "\"e\(index)\""))
    }
    try await withCluster(environment: server.environment) { cluster in
      struct Fetched: Decodable { var name: Name }
      let fetched = try await cluster.mobula("fetch", "s3://b/n/", "--json")
      #expect(fetched.status.isSuccess, "\(fetched)")
      let shown = try JSONDecoder().decode([Fetched].self, from: Data(fetched.output.utf8)).map(\.name)
      #expect(shown == keys.map { Name("s3://b/n/\($0.text)") }.sorted())
      let file = cluster.folder.path + "/out"
      for (index, key) in keys.enumerated() {
        let got = try await cluster.mobula("get", "s3://b/n/\(key.text)", "-o", file)
        #expect(got.status.isSuccess, "\(got)")
        #expect(try Data(contentsOf: URL(filePath: file)) == Data("key \(index)".utf8))
      }
    }
  }

  /// Pods, and what they have: in the supervisor's books, in its files and in JSON.
  @Test func podsAndResourcesToo() async throws {
    let names = ["caf\u{e9}", "cafe\u{301}"]
    let pods = names.map { "pod \($0):CPU=1,\(names[0])=2,\(names[1])=3" }
    try await withCluster(pods.flatMap { ["--pod", $0] }) { cluster in
      struct Status: Decodable {
        struct Pod: Decodable { var name: Name }
        struct Here: Decodable { var processes: [Pod] }
        var pods: [Pod]
        var here: Here
      }
      let shown = try await cluster.mobula("status", "--json")
      let status = try JSONDecoder().decode(Status.self, from: Data(shown.output.utf8))
      #expect(status.pods.map(\.name).sorted() == names.map { Name("pod \($0)") }.sorted(), "\(shown)")
      let processes = status.here.processes.map(\.name)
      for name in names { #expect(processes.contains(Name("pod pod \(name)")), "\(shown)") }
      // A decoder would merge the two keys: the text has both, in each pod.
      for (name, amount) in zip(names, [2, 3]) {
        let member = Array("\"\(name)\": \(amount)".utf8)
        let count = shown.output.utf8.indices.count { shown.output.utf8[$0...].starts(with: member) }
        #expect(count == 2, "\(shown)")
      }
    }
  }

  /// What is no UTF-8 is named with its bytes, and nothing else is done.
  @Test func whatIsNoUTF8IsRefused() async throws {
    let script = """
      "$0" put /dev/null --name "$(printf 'a\\377b')"; echo "$?"
      MOBULA_DIRECTORY="$(printf '/tmp/\\200')" "$0" ls; echo "$?"
      OTHER="$(printf '\\200')" "$0" --version >/dev/null; echo "$?"
      """
    let said = try await run("/bin/sh", ["-c", script, Products.mobula])
    #expect(said.output == "64\n64\n0\n", "\(said)")
    #expect(
      said.errors == """
        Error: The argument "a\\xffb" is not in UTF-8: write it in UTF-8, or rename the file.
        Error: The environment variable MOBULA_DIRECTORY is not in UTF-8, but "/tmp/\\x80": write it in UTF-8, or unset it.

        """)
  }

  @Test func namesThatCannotBeAreSaid() async throws {
    try await withCluster { cluster in
      let file = cluster.folder.path + "/in"
      try Data("x".utf8).write(to: URL(filePath: file))
      for name in ["", String(repeating: "e\u{301}", count: 3000)] {
        let put = try await cluster.mobula("put", file, "--name", name)
        #expect(!put.status.isSuccess && put.errors.contains("name"), "\(put)")
      }
      let listed = try await cluster.mobula("ls", "--json")
      #expect(!listed.output.contains("e\u{301}"), "\(listed)")
    }
  }

  private func expectAll(_ cluster: TestCluster, host: Int) async throws {
    let listed = try await cluster.mobula("ls", "--json", host: host)
    let listings = try JSONDecoder().decode([Listing].self, from: Data(listed.output.utf8))
    #expect(listings.flatMap(\.names).sorted() == Self.names.sorted())
    let text = try await cluster.mobula("ls", host: host).output
    #expect(text.utf8.count(where: { $0 == 0x0A }) == Self.names.count + 1, "a line each: \(text)")
    #expect(!text.unicodeScalars.contains { $0 == "\u{1B}" || $0 == "\u{202E}" })
    for index in Self.names.indices { try await expect(index, in: cluster, host: host) }
  }

  private func expect(_ index: Int, in cluster: TestCluster, host: Int) async throws {
    let file = cluster.folder.path + "/out-\(host)"
    let got = try await cluster.mobula("get", Self.names[index].text, "-o", file, host: host)
    #expect(got.status.isSuccess, "\(index): \(got)")
    #expect(try Data(contentsOf: URL(filePath: file)) == Data("object \(index)".utf8), "\(index)")
  }

  private static func processes(of cluster: TestCluster) throws -> [(pid: Int32, command: String)] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc").compactMap { entry in
      guard let pid = Int32(entry), let data = try? Data(contentsOf: URL(filePath: "/proc/\(entry)/cmdline")) else {
        return nil
      }
      let command = String(decoding: data, as: UTF8.self)
      return command.contains(cluster.directory(0) + "\0") ? (pid, command) : nil
    }
  }
}
