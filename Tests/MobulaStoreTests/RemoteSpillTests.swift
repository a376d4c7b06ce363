import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaStore

/// What a store makes of a spill place, good and bad. The calls block, so that each test has a thread.
struct RemoteSpillTests {
  private static let mine = SpillInstance(high: 1, low: 1), other = SpillInstance(high: 2, low: 2)

  private final class Troubles: Sendable {
    private let all = Mutex<[String]>([])
    var messages: [String] { all.withLock { $0 } }
    func add(_ error: MobulaError) { all.withLock { $0.append(error.message) } }
  }

  private static func spill(
    _ place: MemoryPlace, _ instance: SpillInstance = mine, _ troubles: Troubles = Troubles()
  ) -> RemoteSpill {
    var patience = RemoteSpill.Patience()
    patience.read = .milliseconds(500)
    patience.recover = .milliseconds(300)
    patience.removeAll = .milliseconds(500)
    patience.firstPause = .milliseconds(20)
    patience.secondLook = .milliseconds(10)
    return RemoteSpill(place, instance: instance, patience: patience) { troubles.add($0) }
  }

  private static func write(
    _ sample: SpillSample, to spill: RemoteSpill, within limit: Duration = .seconds(5)
  ) throws -> RemoteObject {
    try sample.bytes.withUnsafeBytes { try spill.write(sample.header, bytes: $0, until: .now + limit) }
  }

  /// The bytes, or the error.
  fileprivate static func read(_ spilled: RemoteObject, from spill: RemoteSpill) -> Result<[UInt8], MobulaError> {
    var memory = [UInt8](repeating: 0xA5, count: spilled.header.geometry.objectSize)
    let failure = error { try memory.withUnsafeMutableBytes { try spill.read(spilled, into: $0) } }
    return failure.map { .failure($0) } ?? .success(memory)
  }

  private static func error(_ body: () throws -> Void) -> MobulaError? {
    do {
      try body()
      return nil
    } catch {
      return error as? MobulaError
    }
  }

  private static func onThread(_ body: @escaping @Sendable () throws -> Void) async throws {
    try await MobulaCore.onThread(named: "test", body)
  }

  @Test(arguments: [1, 4095, 4096, 99_999, 262_145, 1_500_000])
  func objectsComeBackAsTheyWere(size: Int) async throws {
    try await Self.onThread {
      let place = MemoryPlace(), spill = Self.spill(place)
      let sample = try SpillSample(size: size, chunkSize: 65_536, contains: size % 5, flags: 3)
      let spilled = try Self.write(sample, to: spill)
      #expect(try Self.read(spilled, from: spill).get() == sample.bytes)
      #expect(place.names == [spilled.item.name] && spilled.item.name.hasPrefix("\(sample.object).\(Self.mine)."))
      // As a file has it: header and bytes.
      #expect(place.state.withLock { $0.items[spilled.item.name]! } == sample.header.encoded() + sample.bytes)
      spill.remove(spilled.item.name)
      #expect(eventually { place.names == [] })
      spill.removeAll()
    }
  }

  @Test func aPlaceThatRefusesIsAnErrorAndLeavesNothing() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), spill = Self.spill(place)
      let sample = try SpillSample(size: 300_000)
      place.set(.refuses(MobulaError(.denied, "S3 denies access: check the credentials.")))
      let refused = try #require(Self.error { _ = try Self.write(sample, to: spill) })
      #expect(refused.code == .inputOutput)
      #expect(
        refused.message.contains("304 kB can't be spilled to memory (S3 denies access: check the credentials):"),
        "\(refused)")
      place.set(.losesAnswer)
      #expect(Self.error { _ = try Self.write(sample, to: spill) }?.code == .inputOutput)
      #expect(eventually { place.names == [] }, "what came about all the same goes")
      #expect(eventually { place.state.withLock { $0.unfinished == [] } }, "and what came about in part")
      #expect(try Self.read(Self.write(sample, to: spill), from: spill).get() == sample.bytes)
      spill.removeAll()
    }
  }

  @Test func aWriteHasADeadlineAndUsesNoMemoryAfterIt() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), spill = Self.spill(place)
      place.set(.hangs)
      let start = ContinuousClock.now
      let late = Self.error {
        _ = try Self.write(SpillSample(size: 300_000), to: spill, within: .milliseconds(100))
      }
      #expect(start.duration(to: .now) < .seconds(5))
      #expect(late?.code == .inputOutput && late?.message.contains("not written within") == true, "\(late as Any)")
      #expect(eventually { place.state.withLock { $0.late == [.cancelled] } }, "no byte is given any more")
      // With no time left it is not even begun.
      #expect(Self.error { _ = try Self.write(SpillSample(size: 1), to: spill, within: .zero) } != nil)
      place.set(.none)
      spill.removeAll()
    }
  }

  @Test func whatIsDamagedOnTheWayIsReadAgain() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), spill = Self.spill(place)
      let sample = try SpillSample(size: 300_000, chunkSize: 65_536)
      let spilled = try Self.write(sample, to: spill)
      place.set(.damages(reads: 1))
      #expect(try Self.read(spilled, from: spill).get() == sample.bytes)
      place.state.withLock { $0.items[spilled.item.name]![4096 + 65_536] ^= 1 }
      guard case .failure(let error) = Self.read(spilled, from: spill) else {
        Issue.record("a damaged item was read")
        return
      }
      #expect(error.code == .corrupted)
      #expect(error.message.contains("\(sample.object) is lost") && error.message.contains("chunk 1 of 5"), "\(error)")
      spill.removeAll()
    }
  }

  @Test func onlyWhatIsGoneIsLost() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), spill = Self.spill(place)
      let sample = try SpillSample(size: 300_000)
      let spilled = try Self.write(sample, to: spill)
      func code(_ fault: MemoryPlace.Fault) -> MobulaError.Code? {
        place.set(fault)
        if case .failure(let error) = Self.read(spilled, from: spill) { return error.code }
        return nil
      }
      // Said to be gone at first by a place that was just started.
      #expect(code(.forgets(reads: 2)) == nil)
      for (thrown, told) in [
        (MobulaError.Code.unavailable, MobulaError.Code.unavailable), (.denied, .denied),
        (.deadlineExceeded, .deadlineExceeded), (.inputOutput, .unavailable), (.full, .unavailable),
        (.corrupted, .unavailable),
      ] {
        #expect(code(.refuses(MobulaError(thrown, "No."))) == told, "the store keeps it")
      }
      #expect(code(.hangs) == .deadlineExceeded)
      #expect(code(.refuses(MobulaError(.notFound, "No."))) == .notFound)
      #expect(code(.none) == nil)
      place.state.withLock { $0.items[spilled.item.name]!.append(0) }
      #expect(code(.none) == .corrupted, "somebody replaced it")
      spill.removeAll()
    }
  }

  @Test func removalsWaitForThePlace() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), troubles = Troubles(), spill = Self.spill(place, Self.mine, troubles)
      let spilled = try (1...3).map { try Self.write(SpillSample(UInt64($0), size: 1000), to: spill) }
      place.set(.refuses(MobulaError(.unavailable, "Away.")))
      for object in spilled { spill.remove(object.item.name) }
      #expect(eventually { !troubles.messages.isEmpty })
      #expect(place.names.count == 3)
      place.set(.none)
      #expect(eventually { place.names == [] })
      #expect(troubles.messages.count == 1, "told once, not with every attempt: \(troubles.messages)")
      spill.removeAll()
    }
  }

  @Test func whatAnEarlierRunLeftGoes() async throws {
    try await Self.onThread {
      let place = MemoryPlace()
      let dead = Self.spill(place, Self.other)
      for number in 1...3 as ClosedRange<UInt64> { _ = try Self.write(SpillSample(number, size: 1000), to: dead) }
      place.state.withLock { state in
        state.items["notes"] = [1]
        state.unfinished = ["\(SpillItemName(ObjectID(5), Self.other))"]
      }
      place.set(.refuses(MobulaError(.unavailable, "Away.")))
      let troubles = Troubles(), spill = Self.spill(place, Self.mine, troubles)
      spill.clean()
      #expect(eventually { troubles.messages.count == 1 })
      place.set(.none)
      let sample = try SpillSample(1, size: 1000)
      let spilled = try Self.write(sample, to: spill)
      #expect(eventually { place.names == [spilled.item.name] && place.state.withLock { $0.unfinished == [] } })
      #expect(try Self.read(spilled, from: spill).get() == sample.bytes)
      spill.removeAll()
      #expect(place.names == [])
    }
  }

  @Test func aStoreThatStartsAgainTakesItsItemsOver() async throws {
    try await Self.onThread {
      let place = MemoryPlace()
      let samples = try (1...40).map { try SpillSample(UInt64($0), size: 1000 * $0, contains: $0 * 20, flags: 1) }
      let dead = Self.spill(place)
      let spilled = try samples.map { try Self.write($0, to: dead) }
      _ = try Self.write(samples[0], to: Self.spill(place, Self.other))
      // A second copy, of which the removal did not come about, and a header that can't be read.
      _ = try Self.write(samples[1], to: dead)
      place.state.withLock { $0.items[spilled[2].item.name]![70] ^= 1 }

      let troubles = Troubles(), again = Self.spill(place, Self.mine, troubles)
      let found = again.recover()
      #expect(found.map(\.header) == samples.enumerated().filter { $0.offset != 2 }.map(\.element.header))
      #expect(troubles.messages.count == 1 && troubles.messages[0].contains("1 of 40 objects"), "\(troubles.messages)")
      again.clean()
      #expect(eventually { place.names == found.map(\.item.name).sorted() })
      for (object, sample) in zip(found, samples.enumerated().filter { $0.offset != 2 }.map(\.element)) {
        #expect(try Self.read(object, from: again).get() == sample.bytes)
      }
      again.removeAll()
      #expect(place.names == [])
    }
  }

  @Test func aPlaceThatIsAwayKeepsNobodyFromStarting() async throws {
    try await Self.onThread {
      let place = MemoryPlace()
      let spilled = try Self.write(SpillSample(size: 1000), to: Self.spill(place))
      for fault in [MemoryPlace.Fault.hangs, .refuses(MobulaError(.unavailable, "Away."))] {
        _ = try Self.write(SpillSample(2, size: 1000), to: Self.spill(place, Self.other))
        place.set(fault)
        let troubles = Troubles(), again = Self.spill(place, Self.mine, troubles)
        let start = ContinuousClock.now
        #expect(again.recover() == [])
        #expect(start.duration(to: .now) < .seconds(5))
        #expect(troubles.messages.count == 1 && troubles.messages[0].contains("stays until"), "\(troubles.messages)")
        place.set(.none)
        again.clean()
        #expect(eventually { place.names == [spilled.item.name] }, "what may be needed stays")
        again.end()
      }
      let last = Self.spill(place)
      #expect(last.recover() == [spilled])
      last.removeAll()
      #expect(place.names == [])
    }
  }

  @Test func whatCantBeReadAtTheStartStays() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), dead = Self.spill(place)
      let spilled = try (1...40).map { try Self.write(SpillSample(UInt64($0), size: 1000), to: dead) }
      _ = try Self.write(SpillSample(50, size: 1000), to: Self.spill(place, Self.other))
      let codes: [MobulaError.Code] = [.unavailable, .denied, .corrupted, .notFound]
      place.state.withLock { state in
        for (index, object) in spilled.prefix(20).enumerated() {
          state.unreadable[object.item.name] = MobulaError(codes[index % 4], "Not now.")
        }
        state.items[spilled[30].item.name]![70] ^= 1
      }
      let troubles = Troubles(), again = Self.spill(place, Self.mine, troubles)
      #expect(again.recover().map(\.object) == (spilled[20..<30] + spilled[31...]).map(\.object).sorted())
      #expect(troubles.messages.count == 2, "\(troubles.messages)")
      #expect(troubles.messages.contains { $0.contains("1 of 40 objects of this host are lost") })
      #expect(troubles.messages.contains { $0.contains("20 of 40 objects of this host stay") })
      again.clean()
      let kept = (spilled[..<30] + spilled[31...]).map(\.item.name).sorted()
      #expect(eventually { place.names == kept }, "only what is damaged, or another run's, goes")
      again.end()

      place.state.withLock { $0.unreadable = [:] }
      let third = Self.spill(place)
      #expect(third.recover().map(\.item.name).sorted() == kept)
      third.removeAll()
      #expect(place.names == [])
    }
  }

  @Test func whatCantBeReadAtOnceIsReadAgain() async throws {
    try await Self.onThread {
      let place = MemoryPlace()
      let spilled = try Self.write(SpillSample(size: 1000), to: Self.spill(place))
      for fault in [MemoryPlace.Fault.forgets(reads: 2), .damages(reads: 1)] {
        place.set(fault)
        #expect(Self.spill(place).recover() == [spilled])
      }
      Self.spill(place).removeAll()
    }
  }

  @Test func whatCantBeRemovedKeepsNothingElse() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), spill = Self.spill(place)
      let spilled = try (1...20).map { try Self.write(SpillSample(UInt64($0), size: 1000), to: spill) }
      let stuck = spilled[0].item.name
      place.state.withLock { state in
        state.stuck = [stuck]
        state.isUnfinishedStuck = true
      }
      place.set(.losesAnswer)
      #expect(Self.error { _ = try Self.write(SpillSample(21, size: 1000), to: spill) } != nil)
      for object in spilled.prefix(10) { spill.remove(object.item.name) }
      #expect(eventually { place.names == ([stuck] + spilled[10...].map(\.item.name)).sorted() })
      for object in spilled[10...] { spill.remove(object.item.name) }
      #expect(eventually { place.names == [stuck] })
      place.state.withLock { $0.unfinished = ["x"] }
      place.state.withLock { state in
        state.stuck = []
        state.isUnfinishedStuck = false
      }
      #expect(eventually { place.names == [] && place.state.withLock { $0.unfinished == [] } })
      spill.removeAll()
    }
  }

  @Test func theEndIsTheEnd() async throws {
    try await Self.onThread {
      let place = MemoryPlace(), troubles = Troubles(), spill = Self.spill(place, Self.mine, troubles)
      let spilled = try Self.write(SpillSample(size: 1000), to: spill)
      place.set(.hangs)
      let shared = Shared(spill, spilled)
      detachThread(named: "reader") { shared.read() }
      #expect(eventually { shared.begun })
      usleep(50_000)
      spill.end()
      #expect(eventually { shared.error?.code == .unavailable }, "\(shared.error as Any)")
      spill.removeAll()
      #expect(troubles.messages.count == 1 && troubles.messages[0].contains("until it starts again"))
      place.set(.none)
      spill.removeAll()
      #expect(place.names == [])
      let error = Self.error { _ = try Self.write(SpillSample(2, size: 1000), to: spill) }
      #expect(error?.code == .unavailable && place.names == [])
    }
  }

  /// A reader on a thread of its own.
  private final class Shared: Sendable {
    private let spill: RemoteSpill
    private let spilled: RemoteObject
    private let state = Mutex<(begun: Bool, error: MobulaError?)>((false, nil))
    var begun: Bool { state.withLock { $0.begun } }
    var error: MobulaError? { state.withLock { $0.error } }

    init(_ spill: RemoteSpill, _ spilled: RemoteObject) {
      self.spill = spill
      self.spilled = spilled
    }

    func read() {
      state.withLock { $0.begun = true }
      if case .failure(let error) = RemoteSpillTests.read(spilled, from: spill) { state.withLock { $0.error = error } }
    }
  }

  @Test func foldersComeFirst() async throws {
    try await withSpillFolder { root in
      try await Self.onThread {
        let place = MemoryPlace()
        let space = try #require(
          SpillSpace(paths: ["\(root)/a"], remote: Self.spill(place), instance: Self.mine))
        let sample = try SpillSample(size: 1000)
        let first = try sample.bytes.withUnsafeBytes {
          try space.write(sample.header, bytes: $0, until: .now + .seconds(5))
        }
        #expect(!first.isRemote && place.names == [])
        space.remove(first)
        space.removeAll()

        // No folder can be made below a file.
        makeFile("\(root)/file")
        let broken = try #require(
          SpillSpace(paths: ["\(root)/file/a"], remote: Self.spill(place), instance: Self.mine))
        let second = try sample.bytes.withUnsafeBytes {
          try broken.write(sample.header, bytes: $0, until: .now + .seconds(5))
        }
        #expect(second.isRemote && place.names.count == 1)
        #expect(try broken.describe(second).checksums == sample.checksums)
        place.set(.refuses(MobulaError(.unavailable, "Away.")))
        let both = Self.error {
          _ = try sample.bytes.withUnsafeBytes {
            try broken.write(sample.header, bytes: $0, until: .now + .seconds(5))
          }
        }
        #expect(both?.message.contains("memory (Away)") == true && both?.message.contains("\(root)/file/a") == true)
        place.set(.none)
        broken.removeAll()
        unlink("\(root)/file")
        #expect(place.names == [])
      }
    }
  }

  @Test func namesAreReadAsTheyAreWritten() {
    let name = SpillItemName(ObjectID(high: 1, low: 2), Self.mine, number: .max)
    #expect(SpillItemName(name.description) == name)
    for text in ["", "a.b.c", "\(name)1", "\(name).spill", "\(ObjectID(1)).\(Self.mine).007", "\(ObjectID(1))"] {
      #expect(SpillItemName(text) == nil, "\(text)")
    }
  }
}
