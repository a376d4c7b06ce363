import FoundationEssentials
import MobulaCore
import Testing

@testable import MobulaSupervisor

/// The graph of targets in docs/Architecture.md is what the code says.
@Suite struct ArchitectureTests {
  /// The repository: this file is Tests/MobulaToolTests/ArchitectureTests.swift.
  private let root = String(#filePath.dropLast("/Tests/MobulaToolTests/ArchitectureTests.swift".count))

  /// The line of each target in the document's picture, counted from the top.
  private func drawn() throws -> [String: Int] {
    let text = try readText(root + "/docs/Architecture.md")
    let section = try #require(text.split(separator: "## Targets: imports only go down\n", maxSplits: 1).last)
    let parts = section.split(separator: "```", maxSplits: 2, omittingEmptySubsequences: false)
    try #require(parts.count == 3)
    var lines: [String: Int] = [:]
    for (number, line) in parts[1].split(separator: "\n").enumerated() {
      for word in line.split(separator: " ") where word.hasPrefix("Mobula") || word == "CMobula" {
        lines[String(word)] = number
      }
    }
    return lines
  }

  private func sources(of target: String) throws -> [String] {
    let folder = root + "/Sources/" + target
    return try FileManager.default.subpathsOfDirectory(atPath: folder).filter { $0.hasSuffix(".swift") }
      .map { folder + "/" + $0 }
  }

  @Test func importsOnlyGoDown() throws {
    let lines = try drawn()
    let targets = try FileManager.default.contentsOfDirectory(atPath: root + "/Sources")
    #expect(Set(targets) == Set(lines.keys), "the picture has exactly the folders of Sources")
    for target in targets {
      let line = try #require(lines[target])
      for file in try sources(of: target) {
        for text in try readText(file).split(separator: "\n") {
          let words = text.split(separator: " ")
          guard let index = words.firstIndex(of: "import"), index <= 1, index + 1 < words.count else { continue }
          let imported = String(words[index + 1])
          guard let other = lines[imported] else { continue }
          #expect(other > line, "\(target) imports \(imported), which does not stand below it: \(file)")
        }
      }
    }
  }

  @Test func theClientLinksNeitherHostNorHead() throws {
    for file in try sources(of: "Mobula") {
      let text = try readText(file)
      for target in ["MobulaHost", "MobulaHead", "MobulaTransfer", "MobulaS3", "MobulaPod", "MobulaJournal"] {
        #expect(!text.contains("import \(target)\n"), "\(file)")
      }
    }
  }

  private func readText(_ path: String) throws -> String {
    String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
  }
}
