import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// What a person names where a small file is due.
struct SmallFileTests {
  private func withFolder(_ body: (String) async throws -> Void) async throws {
    let folder = try makeTemporaryDirectory("small")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try await body(folder)
  }

  private func code(_ path: String) -> MobulaError.Code? {
    do {
      _ = try readSmallFile(path, "\(path) can't be read", limit: 1000)
      return nil
    } catch { return error.code }
  }

  @Test func filesAreReadWhole() async throws {
    try await withFolder { folder in
      for count in [0, 1, 999, 1000] {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
        try Data(bytes).write(to: URL(filePath: folder + "/file"))
        #expect(try readSmallFile(folder + "/file", "", limit: 1000) == bytes)
      }
      try Data(repeating: 7, count: 1001).write(to: URL(filePath: folder + "/file"))
      #expect(code(folder + "/file") == .invalidArgument)
      #expect(code(folder + "/none") == .inputOutput)
      #expect(code(folder) == .inputOutput)
      #expect(code("/dev/zero") == .invalidArgument)
    }
  }

  @Test func pipesAreReadToTheirEnd() async throws {
    try await withFolder { folder in
      let path = folder + "/pipe"
      try #require(mkfifo(path, 0o600) == 0)
      #expect(code(path) == .deadlineExceeded, "nobody writes it")
      // Whoever comes a little later, and in two pieces.
      let writer = try ChildProcess.spawn("sh", ["-c", "exec >\"$0\"; printf one; sleep 0.1; printf two", path])
      let text = try await onThread(named: "read") { try readSmallFile(path, "", limit: 1000) }
      #expect(String(decoding: text, as: UTF8.self) == "onetwo")
      #expect(await writer.waitForExit().isSuccess)
    }
  }
}
