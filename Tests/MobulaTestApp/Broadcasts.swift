import Mobula
import MobulaCore

/// Objects that are on hosts before anybody there asks for them. On two hosts, of which h1 has the label `zone=b`.
func broadcasts(_ cluster: Cluster) async throws {
  let hosts = try await cluster.status().hosts
  let second = hosts.first { $0.name == "h1" }!.host
  func holders(_ object: ObjectID) async throws -> Set<HostID> {
    Set(try await cluster.list().first { $0.object == object }?.hosts ?? [])
  }

  let model = try await cluster.put(Blob([UInt8](repeating: 7, count: 3_000_001)))
  try await model.broadcast(to: .label("zone", "b"))
  try check(try await holders(model.id) == Set(hosts.map(\.host)), "the host with the label has it, and the maker's")
  try await model.broadcast()

  let next = try await cluster.put(Blob([UInt8](repeating: 8, count: 1_000_000)))
  try await next.prefetch(on: second)
  try check(try await holders(next.id).contains(second), "it was prefetched")

  let nowhere = try await failure { try await model.broadcast(to: .label("zone", "c")) }
  try check(nowhere.code == .notFound && nowhere.message.contains("zone=c"), "the label that nobody has: \(nowhere)")
  let nobody = try await failure { try await model.prefetch(on: HostID(high: 1, low: 2)) }
  try check(nobody.code == .notFound, "the host that is none: \(nobody)")
}
