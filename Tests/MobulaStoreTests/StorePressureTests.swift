import Glibc
import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaStore

/// A store that never has enough room.
@Suite(.serialized) struct StorePressureTests {
  /// Bytes that the store's segments take, as the system says.
  private func segmentBytes(_ store: Store) -> Int {
    store.state.withLock { state in
      state.segments.values.reduce(0) { sum, memory in
        var status = stat()
        fstat(memory.writable.rawValue, &status)
        return sum + Int(status.st_blocks) * 512
      }
    }
  }

  private struct Model: Sendable {
    /// Confirmed and not deleted: the object's number and what it was made of.
    var kept: [Int: (size: Int, seed: UInt8)] = [:]
    var next = 0
    var (puts, full, gets, restores, notNow) = (0, 0, 0, 0, 0)
    var faults: [String] = []
    var running = 3
    var bytes: Int { kept.values.reduce(0) { $0 + $1.size } }
  }

  @Test func whatWasConfirmedStaysReadable() throws {
    let seed = UInt64.random(in: 0...99_999)
    print("whatWasConfirmedStaysReadable: seed \(seed)")
    let running = try RunningStore(capacity: 64 << 20, spills: true, roomDeadline: .seconds(1))
    let end = ContinuousClock.now + .seconds(longTests ? 600 : 8)
    let clients = try (0..<3).map { try running.client("client \($0)") }
    let shared = SharedModel()
    for (index, client) in clients.enumerated() {
      detachThread(named: "pressure") {
        var random = SeededGenerator(seed: seed &+ UInt64(index))
        while ContinuousClock.now < end { Self.act(client, running, shared, &random) }
        shared.update { $0.running -= 1 }
      }
    }
    var most = 0
    while shared.update({ $0.running }) > 0 {
      usleep(20_000)
      let bytes = segmentBytes(running.store)
      most = max(most, bytes)
      #expect(bytes <= 64 << 20, "seed \(seed)")
      #expect(running.store.statistics.used <= 64 << 20, "seed \(seed)")
    }
    let final = shared.update { $0 }
    print(
      "  \(final.puts) puts, \(final.full) full, \(final.gets) gets, \(final.restores) restores, \(final.notNow) not now"
    )
    print(
      "  \(final.kept.count) objects of \(final.bytes) bytes, \(running.store.statistics.spilled) spilled, at most \(most) bytes"
    )
    #expect(final.faults.isEmpty, "seed \(seed): \(final.faults.prefix(3))")
    #expect(final.puts > 100)
    for (number, what) in final.kept {
      do {
        try running.store.restore(.number(number))
        let found = try clients[0].bytes(of: .number(number))
        #expect(found == pattern(size: what.size, seed: what.seed), "seed \(seed), object \(number)")
      } catch {
        Issue.record("object \(number) of \(what.size) bytes, seed \(seed): \(error)")
      }
    }
  }

  /// So that threads can share it.
  private final class SharedModel: Sendable {
    private let model = Mutex(Model())
    func update<Result: Sendable>(_ body: (inout Model) -> Result) -> Result { model.withLock { body(&$0) } }
  }

  private static func act(
    _ client: StoreClient, _ running: RunningStore, _ model: SharedModel, _ random: inout SeededGenerator
  ) {
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<4:
      let size =
        Int.random(in: 0..<4, using: &random) == 0
        ? Int.random(in: 1..<8_000_000, using: &random) : Int.random(in: 1..<100_000, using: &random)
      let number = model.update { model in
        model.next += 1
        return model.next
      }
      let seed = UInt8(truncatingIfNeeded: number)
      do {
        let draft = try client.draft(.number(number), size: size, patience: .seconds(2))
        pattern(size: size, seed: seed).withUnsafeBytes { draft.memory.copyMemory(from: $0) }
        try draft.seal(holds: Bool.random(using: &random))
        try client.confirm(.number(number))
        model.update {
          $0.kept[number] = (size, seed)
          $0.puts += 1
        }
      } catch  where code(of: error) == .full {
        model.update { $0.full += 1 }
      } catch {
        model.update { $0.faults.append("put: \(error)") }
      }
    case 4..<8:
      guard let (number, what) = model.update({ $0.kept.randomElement() }) else { return }
      do {
        if running.store.isSpilled(.number(number)) {
          try running.store.restore(.number(number))
          model.update { $0.restores += 1 }
        }
        let found = try client.bytes(of: .number(number))
        let isRight = found == pattern(size: what.size, seed: what.seed)
        model.update {
          $0.gets += 1
          if !isRight { $0.faults.append("object \(number) has other bytes") }
        }
      } catch  where [.full, .unavailable].contains(code(of: error)) {
        // No room, or on disk again.
        model.update { $0.notNow += 1 }
      } catch  where code(of: error) == .notFound {
        // Deleted by another thread meanwhile?
        if model.update({ $0.kept[number] != nil }) { model.update { $0.faults.append("get: \(error)") } }
      } catch {
        model.update { $0.faults.append("get: \(error)") }
      }
    case 8:
      // Some 150 MB in all, more than there is memory for.
      while let number = model.update({ $0.bytes > 150_000_000 ? $0.kept.randomElement()?.key : nil }) {
        model.update { $0.kept[number] = nil }
        running.store.delete(.number(number))
      }
    default:
      guard let number = model.update({ $0.kept.randomElement()?.key }) else { return }
      running.store.setHeld([.number(number)], Bool.random(using: &random))
    }
  }

  private static func code(of error: any Error) -> MobulaError.Code? { (error as? MobulaError)?.code }

  @Test func aMillionSmallObjects() throws {
    let count = longTests ? 1_000_000 : 100_000
    let running = try RunningStore(capacity: 512 << 20)
    let maker = try running.client()
    let reader = try running.client()
    func resident() -> Int {
      guard let file = fopen("/proc/self/statm", "r") else { return 0 }
      defer { fclose(file) }
      var line = [CChar](repeating: 0, count: 128)
      fgets(&line, 128, file)
      let fields = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(
        separator: " ")
      // What is not shared.
      return ((Int(fields[1]) ?? 0) - (Int(fields[2]) ?? 0)) * pageSize
    }
    let before = resident()
    let start = ContinuousClock.now
    for number in 0..<count {
      let draft = try maker.draft(.number(number), size: 200)
      for at in 0..<25 { draft.memory.storeBytes(of: number &+ at, toByteOffset: at * 8, as: Int.self) }
      try draft.seal()
    }
    try maker.confirm(.number(count - 1))
    let took = start.duration(to: .now)
    let statistics = running.store.statistics
    #expect(statistics.objects == count)
    let middle = ContinuousClock.now
    for number in 0..<count {
      guard let pinned = try reader.pin(.number(number)) else {
        Issue.record("object \(number) is not there")
        return
      }
      let isRight =
        pinned.bytes.count == 200
        && (0..<25).allSatisfy { pinned.bytes.load(fromByteOffset: $0 * 8, as: Int.self) == number &+ $0 }
      if !isRight { Issue.record("object \(number) has other bytes") }
    }
    print(
      "\(count) objects of 200 bytes: put in \(took), got in \(middle.duration(to: .now)); \(statistics.used / count) bytes of segments, \(statistics.overhead / count) of index, \((resident() - before) / count) of private memory each"
    )
    for number in 0..<count { running.store.delete(.number(number)) }
    #expect(running.store.statistics.objects == 0)
    #expect(running.store.statistics.inMemory == 0)
  }
}

/// Spilled objects when there is room nowhere.
@Suite(.serialized) struct StoreFullTests {
  @Test func whatIsSpilledIsReadableWithoutRoom() throws {
    let running = try RunningStore(capacity: 64 << 20, spills: true, roomDeadline: .seconds(2))
    let client = try running.client()
    for number in 0..<5 {
      try client.put(.number(number), size: 20_000_000, seed: UInt8(number))
      try client.confirm(.number(number))
    }
    let spilled = (0..<5).filter { running.store.isSpilled(.number($0)) }
    #expect(spilled.count >= 2)
    // All that is in memory is pinned: nothing can be written out, nor anything brought back.
    var pinned: [KeptPin] = []
    for number in 0..<5 where !spilled.contains(number) {
      pinned.append(KeptPin(try client.pinSlowly(.number(number))))
    }
    for number in spilled {
      #expect(code { try running.store.restore(.number(number), patience: .milliseconds(10)) } == .full)
      #expect(running.store.isInFile(.number(number)))
      let own = try client.readSpilled(.number(number))
      #expect(Array(own.bytes) == pattern(size: 20_000_000, seed: UInt8(number)))
      #expect(UInt(bitPattern: own.bytes.baseAddress) % 64 == 0)
      // And another host can have it.
      let source = try #require(running.store.source(.number(number)))
      #expect(source.chunkMap.isComplete && source.digest == running.store.info(of: .number(number))?.digest)
      var chunk = [UInt8](repeating: 0, count: source.geometry.range(of: 3).count)
      #expect(
        pread(source.descriptor, &chunk, chunk.count, off_t(source.offset + source.geometry.range(of: 3).lowerBound))
          == chunk.count)
      #expect(chunk.withUnsafeBytes { crc32c($0) } == source.checksum(of: 3))
    }
    #expect(code { _ = try client.readSpilled(.number(99)) } == .notFound)
    #expect(code { _ = try client.readSpilled(.number((0..<5).first { !spilled.contains($0) }!)) } == .unavailable)
    pinned = []
    for number in 0..<5 {
      try running.store.restore(.number(number))
      #expect(try client.bytes(of: .number(number)) == pattern(size: 20_000_000, seed: UInt8(number)))
    }
  }

  /// Keeps a pin in an array.
  private final class KeptPin {
    private let bytes: PinnedBytes
    init(_ bytes: consuming PinnedBytes) { self.bytes = bytes }
  }

  @Test func aSpillFolderThatIsAwayIsSaidAtTheStart() throws {
    let folder = TemporaryFolder()
    let file = folder.path + "/file"
    #expect(fclose(fopen(file, "w")) == 0)
    let instance = SpillInstance(high: 1, low: 2)
    let space = try #require(
      SpillSpace(paths: [file, file + "/below", folder.path + "/a/b/c", folder.path], instance: instance))
    let problems = space.problems.map(\.message)
    #expect(problems.count == 2 && problems.allSatisfy { $0.contains(file) }, "\(problems)")
    #expect(access(folder.path + "/a", F_OK) != 0, "nothing is made by a look")
    #expect(chmod(folder.path, 0o777) == 0)
    #expect(throws: MobulaError.self) { try SpillFolders.check(folder.path) }
    #expect(throws: MobulaError.self) { try SpillFolders.check("") }
  }
}
