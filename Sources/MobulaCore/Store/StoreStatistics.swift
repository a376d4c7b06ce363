/// What a store holds at one moment.
public struct StoreStatistics: Codable, Sendable, Hashable {
  /// The most bytes that segments may take.
  public var capacity: Int
  /// Bytes that segments take, whether objects fill them or not; never over the capacity.
  public var used: Int
  /// Of these, bytes of free memory that is kept for the next objects.
  public var warm: Int
  /// Bytes of the objects that are in memory, with their trailers.
  public var inMemory: Int
  /// Objects that can be found: in memory, on disk, arriving or being written.
  public var objects: Int
  /// Objects on disk or in another spill place alone, and their bytes.
  public var spilled: Int
  /// The bytes of these.
  public var spilledBytes: Int
  /// Of these, those that are not on disk.
  public var spilledElsewhere: Int
  /// The bytes of these.
  public var spilledElsewhereBytes: Int
  /// Objects that somebody pins, and their bytes.
  public var pinned: Int
  /// The bytes of these.
  public var pinnedBytes: Int
  /// Objects that are held, and their bytes.
  public var held: Int
  /// The bytes of these.
  public var heldBytes: Int
  /// Deleted objects that readers still have.
  public var doomed: Int
  /// Each segment.
  public var segments: [SegmentStatistics]
  /// Each process that uses the store.
  public var clients: [ClientStatistics]
  /// Objects in memory and on disk, by job.
  public var jobs: [JobStatistics]
  /// Bytes for the index and the clients' pages, which don't count against the capacity.
  public var overhead: Int

  package init(
    capacity: Int, used: Int, warm: Int, inMemory: Int, objects: Int, spilled: Int, spilledBytes: Int,
    spilledElsewhere: Int, spilledElsewhereBytes: Int, pinned: Int, pinnedBytes: Int, held: Int, heldBytes: Int,
    doomed: Int, segments: [SegmentStatistics], clients: [ClientStatistics], jobs: [JobStatistics], overhead: Int
  ) {
    self.capacity = capacity
    self.used = used
    self.warm = warm
    self.inMemory = inMemory
    self.objects = objects
    self.spilled = spilled
    self.spilledBytes = spilledBytes
    self.spilledElsewhere = spilledElsewhere
    self.spilledElsewhereBytes = spilledElsewhereBytes
    self.pinned = pinned
    self.pinnedBytes = pinnedBytes
    self.held = held
    self.heldBytes = heldBytes
    self.doomed = doomed
    self.segments = segments
    self.clients = clients
    self.jobs = jobs
    self.overhead = overhead
  }

  /// The share of the used memory that is neither objects nor kept free: rounding, and extents with room left.
  public var fragmentation: Double { used == 0 ? 0 : Double(max(0, used - warm - inMemory)) / Double(used) }
}

/// What one segment of a store holds.
public struct SegmentStatistics: Codable, Sendable, Hashable {
  /// Which one it is.
  public var segment: SegmentID
  /// Whose process writes it; none for the store itself, and for what remains of an ended process.
  public var maker: StoreClientID?
  /// Whether it is the store's own.
  public var isOwn: Bool
  /// How many objects lie in it.
  public var objects: Int
  /// Bytes of its objects with their trailers.
  public var inMemory: Int
  /// Bytes of its memory.
  public var used: Int
  /// Bytes of it that are kept for the next objects.
  public var warm: Int

  package init(
    segment: SegmentID, maker: StoreClientID?, isOwn: Bool, objects: Int, inMemory: Int, used: Int, warm: Int
  ) {
    self.segment = segment
    self.maker = maker
    self.isOwn = isOwn
    self.objects = objects
    self.inMemory = inMemory
    self.used = used
    self.warm = warm
  }
}

/// What one process has of a store.
public struct ClientStatistics: Codable, Sendable, Hashable {
  /// Which one it is.
  public var client: StoreClientID
  /// What it calls itself.
  public var name: String
  /// The process's number, as the store sees it.
  public var process: Int
  /// Objects that it pins, and their bytes.
  public var pinned: Int
  /// The bytes of these.
  public var pinnedBytes: Int

  package init(client: StoreClientID, name: String, process: Int, pinned: Int, pinnedBytes: Int) {
    self.client = client
    self.name = name
    self.process = process
    self.pinned = pinned
    self.pinnedBytes = pinnedBytes
  }
}

/// What a store has of one job.
public struct JobStatistics: Codable, Sendable, Hashable {
  /// Which job it is.
  public var job: JobID
  /// How many objects of it there are.
  public var objects: Int
  /// Their bytes.
  public var bytes: Int

  package init(job: JobID, objects: Int, bytes: Int) {
    self.job = job
    self.objects = objects
    self.bytes = bytes
  }
}
