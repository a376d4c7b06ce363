import Distributed
import Mobula

// Workers compute gradients on their part of the data, and an actor keeps what they have learned.

/// Points near the line y = 3x - 2.
struct Points: Codable, Sendable {
  var x: [Double]
  var y: [Double]

  init(_ count: Int, seed: Int) {
    // The same noise every time: what the tour prints can be compared.
    var state = UInt64(seed) &* 6_364_136_223_846_793_005 &+ 1
    func next() -> Double {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Double(state >> 40) / Double(1 << 24) - 0.5
    }
    x = (0..<count).map { _ in next() * 4 }
    y = x.map { 3 * $0 - 2 + next() / 10 }
  }
}

distributed actor ParameterServer: RemoteActor {
  typealias ActorSystem = Cluster
  private var weights: [Double]
  private var updates = 0

  init(configuration: [Double], actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    weights = configuration
  }

  distributed func current() -> [Double] { weights }

  /// Moves the weights against a gradient.
  distributed func apply(_ gradient: [Double], rate: Double) -> Int {
    for index in weights.indices { weights[index] -= rate * gradient[index] }
    updates += 1
    return updates
  }
}

/// Learns from its points for some rounds: each takes the newest weights, whoever has moved them.
struct Learn: RemoteAction {
  var points: ObjectRef<Points>
  var server: ParameterServer
  var rounds: Int

  func perform(in context: TaskContext) async throws {
    let points = try await points.value
    for _ in 0..<rounds {
      let weights = try await server.current()
      var gradient = [0.0, 0.0]
      for (x, y) in zip(points.x, points.y) {
        let error = weights[0] * x + weights[1] - y
        gradient[0] += 2 * error * x / Double(points.x.count)
        gradient[1] += 2 * error / Double(points.x.count)
      }
      _ = try await server.apply(gradient, rate: 0.05)
    }
  }
}

@Sendable func parameterServer(_ cluster: Cluster, _ arguments: [String]) async throws {
  try await cluster.withActor(ParameterServer.self, with: [0, 0]) { server in
    var learning: [ObjectRef<Done>] = []
    for seed in 0..<4 {
      // Each part of the data is an object: its worker maps it.
      let points = try await cluster.put(Points(1_000, seed: seed))
      learning.append(try cluster.submit(Learn(points: points, server: server, rounds: 50)))
    }
    _ = try await cluster.values(learning)
    let weights = try await server.current().map { ($0 * 10).rounded() / 10 }
    print("y = \(weights[0])x + \(weights[1]) after 200 updates")
  }
}
