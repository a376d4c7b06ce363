import Mobula

// Results in the order in which they are there, errors among them.

struct Estimate: RemoteTask {
  var seed: Int
  var samples: Int

  /// An error of our own: who waits for the result gets it as it was.
  struct Unlucky: Error, Codable { var seed: Int }

  func run(in context: TaskContext) async throws -> Double {
    if seed == 13 { throw Unlucky(seed: seed) }
    var state = UInt64(seed + 1) &* 0x9E37_79B9_7F4A_7C15
    var inside = 0
    for _ in 0..<samples {
      func next() -> Double {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Double(state >> 11) / Double(UInt64(1) << 53)
      }
      let (x, y) = (next(), next())
      if x * x + y * y < 1 { inside += 1 }
    }
    return 4 * Double(inside) / Double(samples)
  }
}

@Sendable func asTheyCome(_ cluster: Cluster, _ arguments: [String]) async throws {
  let estimates = try (0..<40).map { try cluster.submit(Estimate(seed: $0, samples: 50_000)) }
  var (sum, count) = (0.0, 0)
  for await (_, result) in cluster.results(of: estimates) {
    do {
      sum += try result.get()
      count += 1
    } catch let error as WorkError {
      print("seed \(error.cause(as: Estimate.Unlucky.self)?.seed ?? -1) had no luck")
    }
  }
  print("pi is about \((sum / Double(count) * 100).rounded() / 100), by \(count) estimates")

  // The same over as many inputs as there are, with ten tasks at a time.
  var least = Double.infinity
  for try await value in cluster.map(20..<60, limit: 10, ordered: false, { Estimate(seed: $0, samples: 10_000) }) {
    least = min(least, abs(value - .pi))
  }
  print("the best is \(least < 0.01 ? "right to two digits" : "off by \(least)")")
}
