import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaControl
@testable import MobulaHead

extension SeededGenerator {
  mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }
}

func host(_ number: UInt64) -> HostID { HostID(high: 0, low: number) }
func pod(_ number: UInt64) -> PodID { PodID(high: 0, low: number) }
func lease(_ number: UInt64) -> LeaseID { LeaseID(high: 0, low: number) }
func object(_ number: UInt64, job: UInt32 = 1) -> ObjectID { ObjectID(high: UInt64(job) << 32, low: number) }

let geometry = try! ChunkGeometry(objectSize: 1_000_000, chunkSize: 262_144)
let otherGeometry = try! ChunkGeometry(objectSize: 2_000_000, chunkSize: 262_144)

func digest(_ seed: UInt32 = 0) -> ObjectDigest {
  ObjectDigest(geometry: geometry, checksums: Array(repeating: seed, count: geometry.count))
}

func sealed(
  _ object: ObjectID, held: Bool = false, contains: [ObjectID] = [], digest: ObjectDigest = digest(),
  geometry: ChunkGeometry = geometry
) -> HostChange {
  .sealed(SealedReplica(object: object, geometry: geometry, digest: digest, contains: contains, isHeld: held))
}

func question(
  _ id: RequestID, _ host: HostID, _ object: ObjectID, excluded: Set<HostID> = [], known: Set<HostID> = [],
  plan: SourcePlan = .relay
) -> LocateQuestion {
  LocateQuestion(id: id, host: host, object: object, excluded: excluded, known: known, plan: plan)
}

func answer(_ id: RequestID, _ source: HostID, _ digest: ObjectDigest? = digest()) -> DirectoryAction {
  .answer(id, .sources([source], geometry, digest))
}

/// The sources that these actions give, by request.
func sources(_ actions: [DirectoryAction]) -> [RequestID: Set<HostID>] {
  actions.reduce(into: [:]) { result, action in
    if case .answer(let id, .sources(let hosts, _, _)) = action { result[id, default: []].formUnion(hosts) }
  }
}

/// The seeds of the simulations: a few fixed ones, so that a failure comes back.
let seeds: [UInt64] = Array(1...40)
