public import MobulaCore
internal import Synchronization

extension Store {
  public var statistics: StoreStatistics {
    state.withLock { state in
      let pins = state.shared.pins()
      let entries = state.machine.entries
      func bytes(_ numbers: some Sequence<Int>) -> Int {
        numbers.reduce(0) { $0 + (entries.find($1)?.footprint ?? 0) }
      }
      let pinned = pins.values.reduce(into: Set(entries.all.filter { $0.entry.pins > 0 }.map(\.number))) {
        $0.formUnion($1)
      }
      var result = StoreStatistics(
        capacity: state.machine.capacity, used: state.machine.used, warm: state.machine.warmBytes, inMemory: 0,
        objects: state.machine.entries.count, spilled: 0, spilledBytes: 0, spilledElsewhere: 0,
        spilledElsewhereBytes: 0, pinned: pinned.count, pinnedBytes: bytes(pinned), held: 0, heldBytes: 0,
        doomed: state.machine.doomed.count, segments: [],
        clients: [], jobs: [], overhead: state.index.reservedBytes + state.records.count * ClientPage.size)
      var inSegment: [SegmentID: Int] = [:]
      var jobs: [JobID: JobStatistics] = [:]
      for (number, entry) in entries.all {
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
