import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// What a finished command said.
struct Finished {
  var status: ChildProcess.Exit
  var output: String
  var errors: String
}

/// The executables under test, beside the test bundle.
enum Products {
  static let directory: String = {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { readlink("/proc/self/exe", $0.baseAddress!, $0.count) }
    let path = String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    // The bundle is the executable itself, or run by a helper of the toolchain's that is given its path.
    for candidate in [path] + CommandLine.arguments
    where candidate.contains("/release/") || candidate.contains("/debug/") {
      let directory = candidate.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(
        separator: "/")
      if access(directory + "/mobula", X_OK) == 0 { return directory }
    }
    return ".build/release"
  }()

  static var mobula: String { directory + "/mobula" }
  static var testApp: String { directory + "/MobulaTestApp" }
  static var tour: String { directory + "/MobulaTour" }
}

/// Runs a program to its end, or kills it at the deadline.
///
/// - Parameter input: its standard input.
func run(
  _ executable: String, _ arguments: [String], environment: [String: String] = [:],
  input: ChildProcess.Stream = .null, within limit: Duration = .seconds(60)
) async throws -> Finished {
  let folder = try TemporaryFolder()
  defer { folder.remove() }
  let (output, errors) = (folder.path + "/out", folder.path + "/err")
  func file(_ path: String) throws -> SharedDescriptor {
    SharedDescriptor(
      OwnedDescriptor(owning: try systemCall("open") { open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600) }))
  }
  let files = [try file(output), try file(errors)]
  let child = try ChildProcess.spawn(
    executable, arguments, environment: currentEnvironment().merging(environment) { $1 }, input: input,
    output: .descriptor(files[0].rawValue), errors: .descriptor(files[1].rawValue))
  // An optimised build would close them at their last use, before the child has them.
  withExtendedLifetime(files) {}
  let killer = Task {
    try await Task.sleep(for: limit)
    child.signal(SIGKILL)
  }
  let status = await child.waitForExit()
  killer.cancel()
  func text(_ path: String) -> String {
    (try? Data(contentsOf: URL(filePath: path))).map { String(decoding: $0, as: UTF8.self) } ?? ""
  }
  return Finished(status: status, output: text(output), errors: text(errors))
}

/// A folder that the test removes. Short, since sockets lie in it.
struct TemporaryFolder: Sendable {
  let path: String

  init() throws {
    path = "/tmp/mobula-test-\(String(UInt32.random(in: .min ... .max), radix: 36))"
    try systemCall("mkdir") { mkdir(path, 0o700) }
  }

  func remove() { try? FileManager.default.removeItem(atPath: path) }
}

/// A cluster of one or more hosts on loopback, started and stopped with the tool.
struct TestCluster: Sendable {
  let folder: TemporaryFolder
  let head: String

  /// A port below those that the system gives to connections, so that no test running beside takes it.
  static func freePort() throws -> Int {
    for _ in 0..<100 {
      let port = Int.random(in: 20_000..<32_000)
      let listener = OwnedDescriptor(
        owning: try systemCall("socket") {
          socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        }
      )
      let raw = listener.rawValue
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = UInt16(port).bigEndian
      address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
      let taken = withUnsafeBytes(of: &address) {
        bind(raw, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
      }
      if taken == 0 { return port }
    }
    throw MobulaError(.unavailable, "No port is free.")
  }

  /// Starts the head's host with `arguments`, and `others` more that join it, with `joining`.
  static func start(
    others: Int = 0, _ arguments: [String] = [], joining: [String] = [], environment: [String: String] = [:]
  ) async throws -> TestCluster {
    let folder = try TemporaryFolder()
    let port = try freePort()
    let cluster = TestCluster(folder: folder, head: "127.0.0.1:\(port)")
    do {
      let started = try await run(
        Products.mobula,
        ["start", "--head", "--port", "\(port)", "--name", "h0", "--capacity", "256MB"] + arguments,
        environment: environment.merging(cluster.environment(0)) { $1 })
      try #require(started.status.isSuccess, "\(started.errors)")
      for index in 0..<others {
        let joined = try await run(
          Products.mobula,
          [
            "start", "--address", cluster.head, "--token-file", cluster.directory(0) + "/token", "--name",
            "h\(index + 1)",
            "--capacity", "256MB",
          ] + joining, environment: environment.merging(cluster.environment(index + 1)) { $1 })
        try #require(joined.status.isSuccess, "\(joined.errors)")
      }
      return cluster
    } catch {
      await cluster.stop()
      throw error
    }
  }

  func directory(_ host: Int) -> String { folder.path + "/\(host)" }
  func environment(_ host: Int) -> [String: String] { ["MOBULA_DIRECTORY": directory(host)] }

  func mobula(
    _ arguments: String..., host: Int = 0, environment: [String: String] = [:], within limit: Duration = .seconds(60)
  ) async throws -> Finished {
    try await run(
      Products.mobula, arguments, environment: self.environment(host).merging(environment) { $1 }, within: limit)
  }

  func stop() async {
    let hosts = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    for host in hosts { _ = try? await run(Products.mobula, ["stop", "--directory", folder.path + "/\(host)"]) }
    folder.remove()
  }
}

/// A cluster for the length of `body`.
func withCluster(
  others: Int = 0, _ arguments: [String] = [], joining: [String] = [], environment: [String: String] = [:],
  _ body: (TestCluster) async throws -> Void
) async throws {
  let cluster = try await TestCluster.start(others: others, arguments, joining: joining, environment: environment)
  do {
    try await body(cluster)
  } catch {
    await cluster.stop()
    throw error
  }
  await cluster.stop()
}
