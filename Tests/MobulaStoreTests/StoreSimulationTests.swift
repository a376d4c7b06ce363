import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

/// Random steps of several clients, and after each of them: bytes add up, the
/// capacity holds, and nothing that is pinned was freed or given to another.
struct StoreSimulationTests {
  @Test(arguments: 1...30 as ClosedRange<UInt64>)
  func aStoreKeepsItsPromises(seed: UInt64) throws {
    var simulation = try Simulation(seed: seed)
    for _ in 0..<3000 {
      simulation.step()
      if let problem = simulation.problem() {
        Issue.record("seed \(seed): \(problem)")
        return
      }
    }
    simulation.end()
    #expect(simulation.problem() == nil, "seed \(seed)")
    #expect(simulation.store.used == 0 && simulation.store.pinnedBytes == 0, "seed \(seed)")
    #expect(simulation.store.segments.isEmpty && simulation.store.entries.isEmpty, "seed \(seed)")
    #expect(simulation.evictions > 0 && simulation.refusals > 0, "seed \(seed) never filled the store")
  }
}

/// The model: what was handed out and not given back, kept without any of the store's own tables.
private struct Simulation {
  var store: StoreStateMachine
  var evictions = 0
  var refusals = 0
  private var generator: SeededGenerator
  private var clients: [StoreClientID] = []
  private var segments: [SegmentID: Int] = [:]
  private var regions: [EntryID: Region] = [:]
  struct Held {
    var count = 0
    var entries: Set<EntryID> = []
  }

  /// Entries that somebody reads or writes now.
  private var clientPins: [StoreClientID: [ObjectID: Held]] = [:]
  private var storePins: [EntryID: Int] = [:]
  private var pending: [StoreStateMachine.Allocation] = []
  private var sealing: [StoreStateMachine.Sealing] = []
  private var receiving: [EntryID] = []
  private var sources: [EntryID] = []
  private var violation: String?

  init(seed: UInt64) throws {
    store = try StoreStateMachine(capacity: 1_048_576, epoch: 7)
    generator = SeededGenerator(seed: seed)
  }

  mutating func step() {
    let object = ObjectID(UInt64.random(in: 0..<40, using: &generator))
    let client = clients.randomElement(using: &generator)
    switch Int.random(in: 0..<100, using: &generator) {
    case 0..<4 where clients.count < 5: clients.append(store.attach())
    case 0..<2: if let client { detach(client) }
    case 2..<25: if let client { create(object, client) }
    case 25..<32: receive(object)
    case 32..<44: if let any = pending.takeAny(using: &generator) { resolve(any) }
    case 44..<58: if let client { seal(object, client) }
    case 58..<64: if let any = sealing.takeAny(using: &generator) { finishSeal(any) }
    case 64..<68: if let any = receiving.takeAny(using: &generator) { finishReceive(any) }
    case 68..<78: if let client { pin(object, client) }
    case 78..<86: if let client { unpin(object, client) }
    case 86..<89: pinSource(object)
    case 89..<92: if let any = sources.takeAny(using: &generator) { unpin(any) }
    case 92..<94: if let client { apply(store.abort(object, client: client)) }
    case 94..<96: if let deletion = store.delete(object) { apply(deletion.freed) }
    default: store.setEvictable(object, Int.random(in: 0..<4, using: &generator) > 0)
    }
  }

  /// Everything that was begun is ended, everybody goes, everything is deleted.
  mutating func end() {
    while let any = pending.takeAny(using: &generator) { resolve(any) }
    while let any = sealing.takeAny(using: &generator) { finishSeal(any) }
    while let any = receiving.takeAny(using: &generator) { finishReceive(any) }
    while let any = sources.takeAny(using: &generator) { unpin(any) }
    for client in clients { detach(client) }
    for object in store.index.keys.sorted() { apply(store.delete(object)!.freed) }
  }

  private mutating func create(_ object: ObjectID, _ client: StoreClientID) {
    let size = Bool.random(using: &generator) ? Int.random(in: 1...9000, using: &generator) : anySize()
    do { allocated(try store.create(object, size: size, client: client)) } catch { refused(error) }
  }

  private mutating func receive(_ object: ObjectID) {
    do {
      let allocation = try store.receive(object, size: anySize())
      storePins[allocation.entry, default: 0] += 1
      allocated(allocation)
    } catch { refused(error) }
  }

  private mutating func anySize() -> Int { Int.random(in: 1...300_000, using: &generator) }

  private mutating func refused(_ error: MobulaError) { if error.code == .full { refusals += 1 } }

  private mutating func allocated(_ allocation: StoreStateMachine.Allocation) {
    evictions += allocation.evicted.count
    apply(allocation.freed)
    let region = allocation.region
    if allocation.isNewSegment {
      if segments.updateValue(allocation.segmentSize, forKey: region.segment) != nil {
        violation = "a segment came twice"
      }
      pending.append(allocation)
    }
    for other in regions.values where other.segment == region.segment {
      if other.offset < region.offset + region.size, region.offset < other.offset + other.size {
        violation = "\(region) overlaps \(other)"
      }
    }
    regions[allocation.entry] = region
  }

  private mutating func resolve(_ allocation: StoreStateMachine.Allocation) {
    let isReceiving = storePins[allocation.entry] != nil
    if Int.random(in: 0..<5, using: &generator) > 0, store.segmentMade(allocation) {
      if isReceiving { receiving.append(allocation.entry) }
    } else {
      storePins[allocation.entry] = nil
      apply(store.segmentFailed(allocation))
    }
  }

  private mutating func seal(_ object: ObjectID, _ client: StoreClientID) {
    guard let begun = try? store.beginSeal(object, client: client) else { return }
    storePins[begun.entry, default: 0] += 1
    sealing.append(begun)
  }

  private mutating func finishSeal(_ begun: StoreStateMachine.Sealing) {
    storePins[begun.entry]! -= 1
    switch store.finishSeal(begun) {
    case .sealed(let freed), .aborted(let freed): apply(freed)
    }
  }

  private mutating func finishReceive(_ entry: EntryID) {
    if Bool.random(using: &generator) {
      _ = store.completeReceive(entry)
    } else {
      apply(store.abandonReceive(entry))
    }
    unpin(entry)
  }

  private mutating func pin(_ object: ObjectID, _ client: StoreClientID) {
    guard let region = try? store.pin(object, client: client) else { return }
    let entry = store.index[object]!
    if regions[entry] != region { violation = "\(object) moved" }
    clientPins[client, default: [:]][object, default: Held()].count += 1
    clientPins[client]![object]!.entries.insert(entry)
  }

  /// Which of its pins a client means is unknown, so the model lets all go with the last.
  private mutating func unpin(_ object: ObjectID, _ client: StoreClientID) {
    if let count = clientPins[client]?[object]?.count {
      clientPins[client]![object]!.count -= 1
      if count == 1 { clientPins[client]![object] = nil }
    }
    apply(store.unpin(object, client: client))
  }

  private mutating func pinSource(_ object: ObjectID) {
    guard let entry = store.pinSource(object) else { return }
    storePins[entry, default: 0] += 1
    sources.append(entry)
  }

  private mutating func unpin(_ entry: EntryID) {
    storePins[entry]! -= 1
    apply(store.unpin(entry))
  }

  private mutating func detach(_ client: StoreClientID) {
    clients.removeAll { $0 == client }
    clientPins[client] = nil
    apply(store.detach(client).freed)
  }

  private mutating func apply(_ freed: StoreStateMachine.Freed) {
    for entry in freed.entries {
      if regions.removeValue(forKey: entry) == nil { violation = "\(entry) was freed twice" }
      let isPinned = clientPins.values.contains { $0.values.contains { $0.entries.contains(entry) } }
      if isPinned || storePins[entry] ?? 0 > 0 { violation = "\(entry) was freed while pinned" }
      storePins[entry] = nil
    }
    for segment in freed.segments {
      if segments.removeValue(forKey: segment) == nil { violation = "segment \(segment) was closed twice" }
    }
  }

  /// What is wrong now, if anything.
  func problem() -> String? {
    if let violation { return violation }
    if store.used != segments.values.reduce(0, +) { return "used is \(store.used), not the segments' bytes" }
    if store.used > store.capacity { return "\(store.used) bytes are over the capacity" }
    if Set(regions.keys) != Set(store.entries.keys) { return "entries were lost" }
    for region in regions.values where segments[region.segment] ?? 0 < region.offset + region.size {
      return "\(region) is not inside of an open segment"
    }
    return nil
  }
}

extension Array {
  fileprivate mutating func takeAny(using generator: inout SeededGenerator) -> Element? {
    isEmpty ? nil : remove(at: Int.random(in: indices, using: &generator))
  }
}
