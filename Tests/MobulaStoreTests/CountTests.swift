import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// What operations cost in system calls, allocations, page faults and memory, against the committed thresholds.
struct CountTests {
  @Test(.timeLimit(.minutes(2))) func countsAreWithinTheirThresholds() async throws {
    let folder = TemporaryFolder()
    let path = folder.path + "/out"
    let output = SharedDescriptor(
      OwnedDescriptor(owning: try systemCall("open") { open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600) }))
    let executable = try #require(Self.executable, "MobulaBenchmarks is not beside the tests: build it.")
    let thresholds = #filePath.split(separator: "/").dropLast(3).joined(separator: "/") + "/Benchmarks/thresholds.json"
    let benchmarks = try ChildProcess.spawn(
      executable, ["--check", "--quick", "--thresholds", "/" + thresholds], output: .descriptor(output.rawValue),
      errors: .descriptor(output.rawValue))
    withExtendedLifetime(output) {}
    let exit = await benchmarks.waitForExit()
    let text = String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
    #expect(exit.isSuccess, "\(text)")
    // Of how many, and how many could not be measured here.
    #expect(text.contains(" measured, "), "\(text)")
  }

  /// In the folder of the bundle, which is the executable itself or what the toolchain's helper was given.
  private static var executable: String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { readlink("/proc/self/exe", $0.baseAddress!, $0.count) }
    let own = String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    return ([own] + CommandLine.arguments).map { path in
      path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        + "/MobulaBenchmarks"
    }.first { access($0, X_OK) == 0 }
  }
}
