package import MobulaCore

/// How many objects hosts have, and how many bytes: counted along, since a look at a million objects takes too long.
package struct ReplicaUsage: Hashable, Sendable {
  package struct Host: Hashable, Sendable {
    /// Complete replicas.
    package var objects = 0
    /// Of theirs; 64 bits do not hold all that hosts may say.
    fileprivate var sum = Int128(0)

    package var bytes: ByteCount { ByteCount(Int(clamping: min(sum, Int128(ByteCount.largest.bytes)))) }
  }

  private var hosts: [HostID: Host] = [:]
  /// Objects of which somebody has something.
  package private(set) var available = 0

  package subscript(host: HostID) -> Host { hosts[host] ?? Host() }

  /// What one host has of one object.
  struct Share: Hashable {
    /// Of a complete replica.
    var size: Int?
    /// Whether anybody has something of the object.
    var isAvailable = false

    init(size: Int? = nil, isAvailable: Bool = false) {
      self.size = size
      self.isAvailable = isAvailable
    }

    init(_ record: ObjectRecord, at host: HostID) {
      if record.planner.isComplete(host) { size = record.geometry?.objectSize ?? 0 }
      isAvailable = !record.planner.isEmpty
    }
  }

  /// A host's share of an object has changed.
  mutating func count(_ host: HostID, _ before: Share, _ after: Share) {
    if before.isAvailable != after.isAvailable { available += after.isAvailable ? 1 : -1 }
    guard before.size != after.size else { return }
    var usage = hosts[host] ?? Host()
    if let size = before.size {
      usage.objects -= 1
      usage.sum -= Int128(size)
    }
    if let size = after.size {
      usage.objects += 1
      usage.sum += Int128(size)
    }
    hosts[host] = usage.objects == 0 ? nil : usage
  }

  /// An object is out of the books.
  mutating func forget(_ record: ObjectRecord) {
    let isAvailable = !record.planner.isEmpty
    for host in record.planner.complete {
      var none = Share()
      none.isAvailable = isAvailable
      count(host, Share(record, at: host), none)
    }
    if isAvailable { available -= 1 }
  }
}
