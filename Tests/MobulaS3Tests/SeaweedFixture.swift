import MobulaBench
import MobulaS3
import Testing

/// Runs a suite with one SeaweedFS, stopped when its last test is over.
struct WithSeaweed: SuiteTrait, TestScoping {
  @TaskLocal static var server: SeaweedServer?

  static let isInstalled: Bool = {
    let found = SeaweedServer.isInstalled()
    if !found { print("skipped: SeaweedFS is not installed (make environment)") }
    return found
  }()

  func provideScope(
    for test: Test, testCase: Test.Case?, performing body: @Sendable @concurrent () async throws -> Void
  ) async throws {
    guard Self.isInstalled else { return try await body() }
    let server = try await SeaweedServer.start()
    do {
      try await Self.$server.withValue(server) { try await body() }
    } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }
}

extension Trait where Self == WithSeaweed {
  static var seaweed: Self { Self() }
}
