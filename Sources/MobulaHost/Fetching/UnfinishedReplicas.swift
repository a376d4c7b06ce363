import MobulaCore
import MobulaStore

/// What fetches have left that failed, for the next ones: whole chunks, which are not read again.
struct UnfinishedReplicas {
  struct Replica: Sendable {
    let writer: any ReplicaWriter
    /// Has seen all that is there.
    let check: ReplicaCheck?

    /// Whether the store has not given it up.
    var isThere: Bool {
      do throws(MobulaError) {
        try writer.checkNotAbandoned()
        return true
      } catch {
        return false
      }
    }

    /// Bytes that are there.
    var bytes: Int {
      let (map, geometry) = (writer.chunkMap, writer.geometry)
      return (0..<geometry.count).reduce(0) { map.contains($1) ? $0 + geometry.range(of: $1).count : $0 }
    }
  }

  /// How long they are kept.
  static let patience = Duration.seconds(600)

  private var replicas: [ObjectID: (number: UInt64, replica: Replica)] = [:]
  private var last: UInt64 = 0

  /// - Returns: its number, by which it is told from what is left of the same object later.
  mutating func keep(_ replica: Replica) -> UInt64 {
    last += 1
    replicas[replica.writer.object] = (last, replica)
    return last
  }

  /// - Parameter number: of the one that is meant; whichever there is by default.
  mutating func take(_ object: ObjectID, _ number: UInt64? = nil) -> Replica? {
    guard let (kept, replica) = replicas[object], number ?? kept == kept else { return nil }
    replicas[object] = nil
    return replica
  }

  mutating func takeAll() -> [Replica] {
    defer { replicas = [:] }
    return replicas.values.map(\.replica)
  }
}
