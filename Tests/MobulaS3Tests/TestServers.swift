import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaBench
@testable import MobulaS3

/// A server of the Python environment that a test starts; it goes with this process.
final class TestServer: Sendable {
  let port: Int
  private let shell: ChildProcess
  private let folder: String
  private let lifeline: SharedDescriptor

  var endpoint: S3Endpoint { S3Endpoint(host: "127.0.0.1", port: port) }
  var url: String { "\(endpoint)" }

  /// - Parameters:
  ///   - program: the name in the environment's `bin`.
  ///   - ready: a path that answers as soon as it serves.
  static func start(
    _ program: String, ready: String, _ arguments: (Int) -> [String]
  ) async throws -> TestServer {
    let path = try #require(SeaweedBinary.find(program))
    let port = try FreePorts.draw(1)[0]
    let server = try TestServer(path, arguments(port), port: port)
    let end = ContinuousClock.now + .seconds(30)
    while ContinuousClock.now < end, server.shell.exit == nil {
      let answer = try? await PlainHTTPClient.shared.send(PlainRequest(url: server.url + ready), within: .seconds(2))
      if answer != nil { return server }
      try await Task.sleep(for: .milliseconds(50))
    }
    let log = String(decoding: FileManager.default.contents(atPath: "\(server.folder)/log") ?? Data(), as: UTF8.self)
    await server.stop()
    throw MobulaError(.unavailable, "\(program) did not start: \(log.suffix(1000))")
  }

  private init(_ path: String, _ arguments: [String], port: Int) throws {
    self.port = port
    folder = try makeTemporaryDirectory("server")
    let raw = try systemCall("open") { [folder] in open("\(folder)/log", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600) }
    let log = OwnedDescriptor(owning: raw)
    let (reading, writing) = try socketPair()
    lifeline = writing
    // The shell kills the server when the other end of its input is closed, at the latest with this process.
    let script = #"folder=$1; shift; "$@" </dev/null & read -r line; kill -9 $!; wait; rm -rf "$folder""#
    shell = try ChildProcess.spawn(
      "/bin/sh", ["-c", script, "sh", folder, path] + arguments,
      environment: ["PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder],
      input: .descriptor(reading.rawValue), output: .descriptor(log.rawValue), errors: .descriptor(log.rawValue),
      newSession: true)
    withExtendedLifetime(reading) {}
  }

  func stop() async {
    shutdown(lifeline.rawValue, CInt(SHUT_RDWR))
    _ = await shell.waitForExit()
  }

  static func isInstalled(_ program: String) -> Bool {
    let found = SeaweedBinary.find(program) != nil
    if !found { print("skipped: \(program) is not installed (make environment)") }
    return found
  }
}
