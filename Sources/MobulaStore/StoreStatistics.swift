public import MobulaCore
internal import Synchronization

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
  public var spilledBytes: Int
  /// Of these, those that are not on disk.
  public var spilledElsewhere: Int
  public var spilledElsewhereBytes: Int
  /// Objects that somebody pins, and their bytes.
  public var pinned: Int
  public var pinnedBytes: Int
  /// Objects that are held, and their bytes.
  public var held: Int
  public var heldBytes: Int
  /// Deleted objects that readers still have.
  public var doomed: Int
  public var segments: [SegmentStatistics]
  public var clients: [ClientStatistics]
  /// Objects in memory and on disk, by job.
  public var jobs: [JobStatistics]
  /// Bytes for the index and the clients' pages, which don't count against the capacity.
  public var overhead: Int

  /// The share of the used memory that is neither objects nor kept free: rounding, and extents with room left.
  public var fragmentation: Double { used == 0 ? 0 : Double(max(0, used - warm - inMemory)) / Double(used) }
}

public struct SegmentStatistics: Codable, Sendable, Hashable {
  public var segment: SegmentID
  /// Whose process writes it; none for the store itself, and for what remains of an ended process.
  public var maker: StoreClientID?
  public var isOwn: Bool
  public var objects: Int
  /// Bytes of its objects with their trailers.
  public var inMemory: Int
  /// Bytes of its memory.
  public var used: Int
  public var warm: Int
}

public struct ClientStatistics: Codable, Sendable, Hashable {
  public var client: StoreClientID
  public var name: String
  public var process: Int
  /// Objects that it pins, and their bytes.
  public var pinned: Int
  public var pinnedBytes: Int
}

public struct JobStatistics: Codable, Sendable, Hashable {
  public var job: JobID
  public var objects: Int
  public var bytes: Int
}

extension Store {
  public var statistics: StoreStatistics {
    state.withLock { state in
      let pins = state.shared.pins()
      let entries = state.machine.entries
      func bytes(_ numbers: some Sequence<Int>) -> Int {
        numbers.reduce(0) { $0 + (entries.indices.contains($1) ? entries[$1]?.footprint ?? 0 : 0) }
      }
      let pinned = pins.values.reduce(into: Set(entries.indices.filter { entries[$0]?.pins ?? 0 > 0 })) {
        $0.formUnion($1)
      }
      var result = StoreStatistics(
        capacity: state.machine.capacity, used: state.machine.used, warm: state.machine.warmBytes, inMemory: 0,
        objects: state.machine.index.count, spilled: 0, spilledBytes: 0, spilledElsewhere: 0,
        spilledElsewhereBytes: 0, pinned: pinned.count, pinnedBytes: bytes(pinned), held: 0, heldBytes: 0,
        doomed: state.machine.doomed.count, segments: [],
        clients: [], jobs: [], overhead: state.index.reservedBytes + state.records.count * ClientPage.size)
      var inSegment: [SegmentID: Int] = [:]
      var jobs: [JobID: JobStatistics] = [:]
      for (number, entry) in entries.enumerated() {
        guard let entry else { continue }
        if entry.phase == .spilled {
          result.spilled += 1
          result.spilledBytes += entry.size
          if state.spilled[number]?.isRemote == true {
            result.spilledElsewhere += 1
            result.spilledElsewhereBytes += entry.size
          }
        } else {
          inSegment[entry.segment, default: 0] += entry.footprint
        }
        if entry.isHeld {
          result.held += 1
          result.heldBytes += entry.footprint
        }
        if entry.phase != .doomed {
          let job = entry.object.job
          jobs[job, default: JobStatistics(job: job, objects: 0, bytes: 0)].objects += 1
          jobs[job]!.bytes += entry.size
        }
      }
      result.inMemory = inSegment.values.reduce(0, +)
      result.jobs = jobs.values.sorted { $0.job < $1.job }
      result.segments = state.machine.segments.map { id, segment in
        SegmentStatistics(
          segment: id, maker: segment.maker, isOwn: id == state.machine.ownSegment, objects: segment.entries,
          inMemory: inSegment[id] ?? 0, used: segment.space.reservedBytes, warm: segment.space.warmBytes)
      }.sorted { $0.segment.number < $1.segment.number }
      result.clients = state.machine.clients.map { id, client in
        let numbers = pins[id] ?? []
        return ClientStatistics(
          client: id, name: client.name, process: Int(client.process), pinned: numbers.count,
          pinnedBytes: bytes(numbers))
      }.sorted { $0.client.number < $1.client.number }
      return result
    }
  }
}
