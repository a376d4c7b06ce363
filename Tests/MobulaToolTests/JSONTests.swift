import FoundationEssentials
import MobulaCore
import Testing

/// What `--json` prints has the keys that docs/json.md says, and no others.
@Suite struct JSONTests {
  /// The section of a command: its headline says so.
  private func section(_ command: String) throws -> String {
    let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()
    let text = String(decoding: try Data(contentsOf: URL(filePath: root + "/docs/json.md")), as: UTF8.self)
    var lines: [Substring] = []
    var isInside = false
    for line in text.split(separator: "\n") {
      if line.hasPrefix("## ") { isInside = line.hasPrefix("## `\(command)`") && !line.hasSuffix("S3") }
      if isInside { lines.append(line) }
    }
    return lines.joined(separator: "\n")
  }

  /// All keys of objects, at any depth, but for those that users choose.
  private func keys(_ value: JSONValue, below name: String = "") -> Set<String> {
    switch value {
    case .array(let elements): Set(elements.flatMap { keys($0, below: name) })
    case .object(let members):
      ["labels", "resources", "leased"].contains(name)
        ? [] : Set(members.flatMap { [$0.key] + keys($0.value, below: $0.key) })
    default: []
    }
  }

  @Test func keysAreInTheDocs() async throws {
    try await withCluster(["--label", "zone=a", "--resources", "gpu=0.5,disk=3"]) { cluster in
      let file = cluster.folder.path + "/x"
      try Data("x".utf8).write(to: URL(filePath: file))
      for (command, arguments) in [
        ("put", [file]), ("get", ["x", "-o", file + "2"]), ("broadcast", ["x"]), ("ls", []), ("status", []),
        ("store", []),
      ] {
        let finished = try await run(
          Products.mobula, [command] + arguments + ["--json"], environment: cluster.environment(0))
        #expect(finished.status.isSuccess, "\(finished)")
        let value = try JSONDecoder().decode(JSONValue.self, from: Data(finished.output.utf8))
        let documented = try section(command)
        #expect(!documented.isEmpty, "\(command) has no section")
        for key in keys(value) { #expect(documented.contains("`\(key)`"), "\(command): \(key)") }
        if command == "status" {
          let resources = value["pods"]?.elements.first?["resources"]
          #expect(resources?["gpu"] == .number(0.5) && resources?["disk"] == .number(3))
        }
      }
      let ids = try await cluster.mobula("ls", "-q")
      let id = ids.output.filter { !$0.isNewline }
      #expect(ObjectID(id) != nil, "\(ids)")
      // The beginning of an id is enough, its leading zeros counted or not.
      for part in [id.dropLast(3), id.drop { $0 == "0" }.prefix(9)] {
        let got = try await cluster.mobula("get", String(part), "-o", "/dev/null")
        #expect(got.status.isSuccess, "\(part) of \(id): \(got)")
      }
    }
  }
}
