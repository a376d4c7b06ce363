import Foundation
import Mobula

/// A tour of what Mobula runs: each stop is a program of its own that fits on a page.
///
/// ```
/// mobula start --head
/// .build/release/MobulaTour parameter-server
/// .build/release/MobulaTour word-count s3://texts/alice.txt s3://texts/bob.txt
/// ```
@main struct Tour: MobulaApp {
  static let stops: [String: @Sendable (Cluster, [String]) async throws -> Void] = [
    "parameter-server": parameterServer, "word-count": wordCount, "actor-pool": actorPool, "as-they-come": asTheyCome,
  ]

  func run(on cluster: Cluster) async throws {
    let arguments = CommandLine.arguments.dropFirst()
    guard let name = arguments.first, let stop = Self.stops[name] else {
      throw Usage(description: "Give one of \(Self.stops.keys.sorted().joined(separator: ", ")).")
    }
    try await stop(cluster, Array(arguments.dropFirst()))
  }
}

struct Usage: Error, CustomStringConvertible {
  let description: String
}
