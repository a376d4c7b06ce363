import FoundationEssentials
import Glibc
import MobulaCore
import MobulaWire
import Testing

struct VersionTests {
  @Test func theVersionSaysWhatWasBuilt() async throws {
    let said = try await run(Products.mobula, ["--version"])
    #expect(said.status.isSuccess && said.errors.isEmpty, "\(said)")
    let parts = try #require(
      said.output.wholeMatch(of: /mobula (\d+\.\d+\.\d+)( \([0-9a-f]{7,40}(-modified)?\))?, wire (\d+)\n/), "\(said)")
    #expect(parts.4 == "\(Hello.currentWireVersion)")
  }

  /// Outside of a checkout there is no commit, and what has not changed is not written again.
  @Test func theCommitIsWrittenOnceAndOnlyWhereThereIsOne() async throws {
    let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let file = folder.path + "/out/Commit.swift"
    func write() async throws -> stat {
      let said = try await run("/bin/sh", [root + "/Scripts/commit.sh", folder.path, folder.path + "/out"])
      #expect(said.status.isSuccess && said.errors.isEmpty, "\(said)")
      var status = stat()
      #expect(stat(file, &status) == 0)
      return status
    }
    let first = try await write()
    #expect(String(decoding: try Data(contentsOf: URL(filePath: file)), as: UTF8.self).contains("builtCommit = \"\""))
    let second = try await write()
    #expect(first.st_ino == second.st_ino && first.st_mtim.tv_nsec == second.st_mtim.tv_nsec)
  }
}
