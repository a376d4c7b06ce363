import Distributed
import Mobula

struct Sum: RemoteTask {  // found in the worker by its type: nothing to register
  var weights: ObjectRef<Blob>

  func run(in context: TaskContext) async throws -> Int {
    let blob = try await weights.value  // a view of shared memory, not a copy
    return blob.withUnsafeBytes { bytes in bytes.reduce(0) { $0 + Int($1) } }
  }
}

distributed actor Model: RemoteActor {
  typealias ActorSystem = Cluster
  private let name: String
  private var weights: Blob?

  init(configuration: String, actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    name = configuration
  }

  distributed func load(_ reference: ObjectRef<Blob>) async throws -> String {
    let blob = try await reference.value
    weights = blob
    return "\(name) has \(blob.count) bytes"
  }
}

@main struct App: MobulaApp {  // the same executable is driver and worker
  func run(on cluster: Cluster) async throws {
    let weights = try await cluster.put(Blob([UInt8](repeating: 1, count: 1_000_000)))
    let sum = try cluster.submit(Sum(weights: weights), .resources(cpu: 1))
    print(try await sum.value)
    let model = try await cluster.spawn(Model.self, with: "whisper", .resources(cpu: 1, memory: .gigabytes(1)))
    print(try await model.load(weights))
  }
}
