/// From where a receiving host may take an object.
public enum SourcePolicy: String, Codable, Sendable {
  /// From any host that has it or is receiving it.
  case relay
  /// From the host where it was made, however many ask.
  case origin
}

/// How to choose among the pods that can hold a lease.
public enum PlacementStrategy: Codable, Sendable, Hashable {
  /// The pod with the least left, so that large demands find room elsewhere.
  case pack
  /// The pod with the fewest leases.
  case spread
  /// A pod of this host only.
  case host(HostID)
}

/// Who goes first where a host's network does not suffice for all.
public enum TransferPriority: UInt8, Codable, Sendable, Comparable, CaseIterable {
  /// A copy that nobody waits for, as of a broadcast.
  case background = 0
  /// Somebody will want it soon.
  case prefetch = 1
  /// Somebody waits for it.
  case get = 2

  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}
