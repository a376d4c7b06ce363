import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import Testing

/// What the tool shows and does of a host's store.
@Suite struct StoreCommandTests {
  @Test func aFullStoreSpillsAndRestores() async throws {
    let spill = try TemporaryFolder()
    defer { spill.remove() }
    try await withCluster(["--spill", spill.path + "/a", "--spill", spill.path + "/b"]) { cluster in
      var files: [String] = []
      for number in 0..<4 {
        let file = cluster.folder.path + "/file\(number)"
        try Data((0..<100_000_000).map { UInt8(truncatingIfNeeded: $0 &* 3 &+ number) }).write(to: URL(filePath: file))
        let put = try await cluster.mobula("put", file)
        #expect(put.status.isSuccess, "\(put)")
        files.append(file)
      }
      let shown = try await cluster.mobula("store", "--json")
      let statistics = try JSONDecoder().decode(JSONValue.self, from: Data(shown.output.utf8))
      func number(_ key: String) -> Double {
        if case .number(let value)? = statistics[key] { value } else { -1 }
      }
      #expect(number("objects") == 4)
      #expect(number("spilled") >= 2)
      #expect(0...256_000_000 ~= number("used"))
      let text = try await cluster.mobula("store")
      #expect(text.output.contains("on disk") && text.output.contains("command line"), "\(text)")
      for (number, file) in files.enumerated() {
        let got = try await cluster.mobula("get", "file\(number)", "-o", cluster.folder.path + "/copy")
        #expect(got.status.isSuccess, "\(got)")
        let same =
          try Data(contentsOf: URL(filePath: file)) == Data(contentsOf: URL(filePath: cluster.folder.path + "/copy"))
        #expect(same, "file \(number) came back as it was put")
      }

      // A damaged file costs its object, says so, and nothing else.
      let damaged = try #require(spilled(in: [spill.path + "/a", spill.path + "/b"]).first)
      let descriptor = open(damaged, O_WRONLY)
      pwrite(descriptor, "damaged", 7, 50_000_000)
      close(descriptor)
      var failures = 0
      for number in files.indices {
        let got = try await cluster.mobula("get", "file\(number)", "-o", cluster.folder.path + "/copy")
        if !got.status.isSuccess { failures += 1 }
      }
      #expect(failures == 1)
      for number in files.indices { _ = try await cluster.mobula("rm", "file\(number)") }
      for _ in 0..<100 where !spilled(in: [spill.path + "/a", spill.path + "/b"]).isEmpty {
        try await Task.sleep(for: .milliseconds(20))
      }
      #expect(spilled(in: [spill.path + "/a", spill.path + "/b"]).isEmpty, "files go with their objects")
    }
  }

  private func spilled(in folders: [String]) -> [String] {
    folders.flatMap { folder in
      ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).filter { $0.hasSuffix(".spill") }
        .map { folder + "/" + $0 }
    }
  }

  @Test func heldObjectsStay() async throws {
    try await withCluster { cluster in
      let file = cluster.folder.path + "/file"
      try Data("kept".utf8).write(to: URL(filePath: file))
      #expect(try await cluster.mobula("put", file).status.isSuccess)
      let held = try await cluster.mobula("hold", "file")
      #expect(held.status.isSuccess && held.output.hasPrefix("held "), "\(held)")
      let listed = try await cluster.mobula("ls")
      #expect(listed.output.contains("file (held)") && !listed.output.contains("held/"), "\(listed)")
      #expect(try await cluster.mobula("release", "file").status.isSuccess)
      let again = try await cluster.mobula("release", "file")
      #expect(again.status == .status(1) && again.errors.contains("is not held"), "\(again)")
    }
  }

  @Test func microbenchmark() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let json = folder.path + "/micro.json"
    let finished = try await run(
      Products.mobula,
      ["microbenchmark", "--seconds", "0.05", "--capacity", "3GB", "--filter", "calls", "--json", json])
    #expect(finished.status.isSuccess, "\(finished)")
    let names = Microbenchmark.names.filter { $0.contains("calls") }
    #expect(
      finished.output.split(separator: "\n").map { $0.split(separator: " per second")[0] } == names.map { $0[...] })
    let rows = try JSONDecoder().decode(
      [MicrobenchmarkRow].self, from: try Data(contentsOf: URL(filePath: json)))
    #expect(rows.map(\.name) == names)
    #expect(rows.allSatisfy { $0.perSecond > 0 && $0.deviation >= 0 })

    // Beside other figures, as Ray prints them.
    let ray = folder.path + "/ray.txt"
    try Data("some line\nsingle client get calls per second 1.0 +- 0.5\n".utf8).write(to: URL(filePath: ray))
    let beside = try await run(
      Products.mobula,
      ["microbenchmark", "--seconds", "0.05", "--capacity", "3GB", "--filter", "get calls", "--compare", ray])
    #expect(beside.status.isSuccess && beside.output.hasSuffix(" x)\n"), "\(beside)")
    let nothing = try await run(Products.mobula, ["microbenchmark", "--compare", Products.mobula])
    #expect(nothing.status == .status(1) && nothing.errors.contains("no rows"), "\(nothing)")
  }
}
