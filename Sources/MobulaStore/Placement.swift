public import MobulaCore

/// Where an object's bytes are, for a client of the store to map.
public struct Placement: Codable, Sendable, Hashable {
  public let segment: SegmentID
  /// Bytes of the whole segment, which is what a client maps.
  public let segmentSize: Int
  /// Where in the segment the object begins, in bytes; a multiple of 64.
  public let offset: Int
  /// Bytes of the object.
  public let size: Int
  /// Whether the client may write: only its maker, and only until it seals the object.
  public let writable: Bool
  /// Fetches the segment's descriptor, for a client that has not mapped the segment; good for 30 seconds.
  public let ticket: DescriptorTicket?

  public init(
    segment: SegmentID, segmentSize: Int, offset: Int, size: Int, writable: Bool, ticket: DescriptorTicket? = nil
  ) {
    self.segment = segment
    self.segmentSize = segmentSize
    self.offset = offset
    self.size = size
    self.writable = writable
    self.ticket = ticket
  }
}

/// A sealed object of a store: what it is, and what its bytes must be.
public struct ReplicaInfo: Codable, Sendable, Hashable {
  public let object: ObjectID
  public let geometry: ChunkGeometry
  public let digest: ObjectDigest

  public init(object: ObjectID, geometry: ChunkGeometry, digest: ObjectDigest) {
    self.object = object
    self.geometry = geometry
    self.digest = digest
  }
}

/// How much of an object a store has.
public enum ReplicaState: Sendable, Hashable {
  case sealed
  /// Still arriving: `verified` of `count` chunks are in.
  case partial(verified: Int, of: Int)
}

/// What a store holds at one moment.
public struct StoreStatistics: Codable, Sendable, Hashable {
  /// The most bytes that segments may take.
  public var capacity: Int
  /// Bytes of all segments, to the byte, whether objects fill them or not.
  public var used: Int
  /// Objects that can be found: sealed, arriving or being written.
  public var objects: Int
  /// Bytes of the objects that somebody has pinned.
  public var pinned: Int
  public var segments: Int

  public init(capacity: Int, used: Int, objects: Int, pinned: Int, segments: Int) {
    self.capacity = capacity
    self.used = used
    self.objects = objects
    self.pinned = pinned
    self.segments = segments
  }
}
