import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

private let megabyte = 1 << 20

/// A machine with clients' pins in place of their pages.
private struct Books {
  var machine: StoreStateMachine
  /// What clients pin in their pages.
  var pinned: Set<Int> = []
  private var nextSegment: UInt64 = 2

  init(capacity: Int = 64 * megabyte, warmLimit: Int = 0) throws {
    machine = try StoreStateMachine(capacity: capacity, warmLimit: warmLimit)
    machine.ownSegment = SegmentID(1)
    machine.segments[SegmentID(1)] = .init(
      size: machine.segmentSize, maker: nil, user: 0,
      space: VirtualSpace(size: machine.segmentSize, granularity: pageSize))
  }

  var retire: StoreStateMachine.Retire {
    let pinned = pinned
    return { numbers, _ in numbers.map { pinned.contains($0) } }
  }

  @discardableResult
  mutating func attach(_ id: UInt64, user: UInt32 = 0) -> SegmentID {
    let (segment, isNew) = machine.attach(
      StoreClientID(id), name: "client \(id)", process: Int32(id), user: user, newSegment: SegmentID(nextSegment))
    if isNew { nextSegment += 1 }
    return segment
  }

  /// As the shell does: pages go to the system, and what that frees again.
  mutating func settle(_ freed: StoreStateMachine.Freed) {
    var freed = freed
    while !freed.pages.isEmpty { freed = machine.gaveBack(freed.pages) }
  }

  mutating func put(_ number: Int, _ client: UInt64, offset: Int, size: Int = 200) -> StoreStateMachine.Announced {
    machine.announce(announcement(number, offset: offset, size: size), client: StoreClientID(client))
  }

  func announcement(_ number: Int, offset: Int, size: Int) -> ClientPage.Announcement {
    ClientPage.Announcement(
      kind: .put, object: .number(number), offset: offset, size: size, chunkShift: 20,
      trailerSize: ObjectTrailer.size(chunks: (size + megabyte - 1) / megabyte, contained: 0))
  }
}

@Suite struct StoreStateMachineTests {
  let one = StoreClientID(1)

  @Test func aClientGrowsPutsAndLeaves() throws {
    var books = try Books()
    let segment = books.attach(1)
    #expect(segment == SegmentID(2))
    let grown1 = try books.machine.grow(one, bytes: megabyte)
    let (grant, slot) = try #require(grown1)
    #expect(grant == .init(segment: segment, range: 0..<megabyte, toReserve: [0..<megabyte]))
    #expect(slot == 0 && books.machine.used == megabyte)
    #expect(books.put(1, 1, offset: 0) == .sealed(0, .init()))
    #expect(books.put(1, 1, offset: 0) == .known)
    #expect(books.put(1, 1, offset: 320) == .refused(StoreStateMachine.exists(.number(1)), .regions(1, 320)))
    #expect(books.put(2, 1, offset: 2 * megabyte).refusal == .protocolViolation)
    let gone = books.machine.detach(one, retire: books.retire)
    #expect(gone.aborted == [])
    books.settle(gone.freed)
    // A page with its object stays.
    #expect(books.machine.used == pageSize)
    let deletion = books.machine.delete(.number(1), retire: books.retire)
    let (_, freed) = try #require(deletion)
    books.settle(freed)
    #expect(books.machine.used == 0 && books.machine.segments.count == 1)
  }

  @Test func anExtentWithObjectsIsNotTakenBack() throws {
    var books = try Books()
    books.attach(1)
    let grown2 = try books.machine.grow(one, bytes: megabyte)
    let (grant, slot) = try #require(grown2)
    #expect(books.put(1, 1, offset: 64) == .sealed(0, .init()))
    #expect(books.machine.giveBack(one, offset: 0, size: megabyte) == .init())
    #expect(books.machine.giveBack(one, offset: 64, size: megabyte) == .init())
    let deletion = books.machine.delete(.number(1), retire: books.retire)
    let (_, freed) = try #require(deletion)
    #expect(freed.regions == [.init(client: one, offset: 64)])
    let back = books.machine.giveBack(one, offset: grant.range.lowerBound, size: grant.range.count)
    #expect(back.grants == [.init(client: one, slot: slot)])
    books.settle(back)
    #expect(books.machine.used == 0)
  }

  @Test func aBigObjectIsCreatedAndAnnouncedSmaller() throws {
    var books = try Books()
    books.attach(1)
    let grown3 = try books.machine.create(.number(1), footprint: 3 * megabyte, client: one)
    let creation = try #require(grown3)
    #expect(books.machine.used == 3 * megabyte)
    #expect { _ = try books.machine.create(.number(1), footprint: megabyte, client: one) } throws: {
      ($0 as? MobulaError)?.code == .alreadyExists
    }
    // Another object in its place is nobody's.
    #expect(books.put(2, 1, offset: creation.grant.range.lowerBound, size: megabyte).refusal == .protocolViolation)
    guard case .sealed(0, let freed) = books.put(1, 1, offset: creation.grant.range.lowerBound, size: megabyte) else {
      Issue.record("it was refused")
      return
    }
    #expect(freed.grants == [.init(client: one, slot: creation.slot)])
    books.settle(freed)
    #expect(books.machine.used == megabyte + pageSize)
  }

  @Test func whatIsDeletedWhileItIsMadeIsItsMakersToEnd() throws {
    var books = try Books()
    books.attach(1)
    let grown4 = try books.machine.create(.number(1), footprint: 3 * megabyte, client: one)
    let creation = try #require(grown4)
    #expect(books.machine.delete(.number(1), retire: books.retire)?.freed == .init())
    #expect { _ = try books.machine.create(.number(1), footprint: megabyte, client: one) } throws: {
      ($0 as? MobulaError)?.code == .alreadyExists
    }
    let announced = books.put(1, 1, offset: creation.grant.range.lowerBound, size: megabyte)
    #expect(announced.refusal == .cancelled)
    if case .refused(_, let freed) = announced { books.settle(freed) }
    #expect(books.machine.used == 0)
  }

  @Test func aGrantOfAStoreThatDiedIsAdoptedOrGivenUp() throws {
    for isAnnounced in [true, false] {
      var books = try Books()
      books.attach(1)
      let grown5 = try books.machine.create(.number(1), footprint: 3 * megabyte, client: one)
      let creation = try #require(grown5)
      // All that a restart finds of it is the grant.
      books.machine.clients[one]!.creating = [:]
      books.machine.segments[SegmentID(2)]!.entries = 0
      books.machine.entries.drop(creation.entry)
      let offset = creation.grant.range.lowerBound
      if isAnnounced {
        guard case .sealed(_, let freed) = books.put(1, 1, offset: offset, size: 2 * megabyte) else {
          Issue.record("it was refused")
          return
        }
        books.settle(freed)
        #expect(books.machine.used == 2 * megabyte + pageSize)
      } else {
        books.settle(books.machine.abort(.number(1), client: one, offset: offset))
        #expect(books.machine.used == 0 && books.machine.clients[one]!.grants.isEmpty)
      }
    }
  }

  @Test func deletedObjectsWaitForPinsOfEitherKind() throws {
    var books = try Books()
    books.attach(1)
    _ = try books.machine.grow(one, bytes: megabyte)
    #expect(books.put(1, 1, offset: 0) == .sealed(0, .init()))
    #expect(try books.machine.pin(.number(1), client: one) == 0)
    books.pinned = [0]
    #expect(books.machine.delete(.number(1), retire: books.retire)?.freed == .init())
    #expect(books.machine.doomed == [0])
    #expect(books.machine.unpin(5, client: one, retire: books.retire) == .init())
    #expect(books.machine.unpin(0, client: one, retire: books.retire) == .init())
    books.pinned = []
    let freed = books.machine.reap(retire: books.retire)
    #expect(freed.entries == [0] && freed.regions == [.init(client: one, offset: 0)])
  }

  @Test func roomIsMadeByEvictionThenByDisk() throws {
    var books = try Books(capacity: 4 * megabyte)
    let geometry = try ChunkGeometry(objectSize: megabyte)
    for number in 1...3 {
      guard
        case .filling(let filling) = try books.machine.receive(.number(number), geometry: geometry, isCache: number < 3)
      else {
        Issue.record("no room for \(number)")
        return
      }
      let isComplete1 = books.machine.completeReceive(filling.entry)
      #expect(isComplete1)
      _ = books.machine.unpin(filling.entry, retire: books.retire)
    }
    #expect(try books.machine.receive(.number(4), geometry: geometry, isCache: true) == .noRoom(megabyte + pageSize))
    books.pinned = [0]
    // The first is pinned, so the second goes.
    guard
      case .freed(let freed, let evicted) = books.machine.makeRoom(
        megabyte + pageSize, spills: true, isPinned: { $0 == 0 }, retire: books.retire)
    else {
      Issue.record("nothing was freed")
      return
    }
    #expect(evicted == [.number(2)])
    books.settle(freed)
    #expect(books.machine.makeRoom(2 * megabyte, spills: false, isPinned: { $0 == 0 }, retire: books.retire) == .wait)
    #expect(
      books.machine.makeRoom(2 * megabyte, spills: true, isPinned: { $0 == 0 }, retire: books.retire) == .spill(2))
    #expect(books.machine.makeRoom(2 * megabyte, spills: true, isPinned: { $0 == 0 }, retire: books.retire) == .wait)
    let (left, spilled) = books.machine.spilled(2, retire: books.retire)
    #expect(left)
    books.settle(spilled)
    #expect(books.machine.entries.find(2)?.phase == .spilled)
    guard case .filling(let back) = books.machine.beginRestore(2) else {
      Issue.record("no room to restore")
      return
    }
    #expect(books.machine.makeRoom(4 * megabyte, spills: true, isPinned: { $0 == 0 }, retire: books.retire) == .wait)
    let isComplete2 = books.machine.completeRestore(back.entry)
    #expect(isComplete2)
    // One whose trailer is broken is not tried again.
    #expect(
      books.machine.makeRoom(4 * megabyte, spills: true, isPinned: { $0 == 0 }, retire: books.retire) == .spill(2))
    #expect(books.machine.notSpilled(2, isDamaged: true, retire: books.retire) == .init())
    #expect(books.machine.makeRoom(4 * megabyte, spills: true, isPinned: { $0 == 0 }, retire: books.retire) == .wait)
  }

  /// What nobody can ask for any more makes room without a disk, unless somebody holds or pins it after all.
  @Test func whatNobodyWantsGoesFirst() throws {
    var books = try Books(capacity: 4 * megabyte)
    let geometry = try ChunkGeometry(objectSize: megabyte)
    for number in 1...3 {
      guard
        case .filling(let filling) = try books.machine.receive(.number(number), geometry: geometry, isCache: false)
      else {
        Issue.record("no room for \(number)")
        return
      }
      let isComplete = books.machine.completeReceive(filling.entry)
      #expect(isComplete)
      _ = books.machine.unpin(filling.entry, retire: books.retire)
      books.machine.setHeld(.number(number), true)
    }
    let wanted = 2 * megabyte
    #expect(books.machine.makeRoom(wanted, spills: false, isPinned: { _ in false }, retire: books.retire) == .wait)
    // Each of these says that somebody wants it after all.
    let signs: [(inout StoreStateMachine, ObjectID) -> Void] = [
      { $0.setHeld($1, true) }, { $0.setCache($1, false) }, { $0.setWanted($1) },
    ]
    for sign in signs {
      for number in 1...3 {
        books.machine.setUnwanted(.number(number))
        sign(&books.machine, .number(number))
      }
      #expect(books.machine.makeRoom(wanted, spills: false, isPinned: { _ in false }, retire: books.retire) == .wait)
    }
    for number in 1...3 { books.machine.setUnwanted(.number(number)) }
    books.machine.setHeld(.number(2), true)
    books.pinned = [0]
    guard
      case .freed(let freed, let evicted) = books.machine.makeRoom(
        wanted, spills: true, isPinned: { $0 == 0 }, retire: books.retire)
    else {
      Issue.record("nothing was freed")
      return
    }
    #expect(evicted == [.number(3)])
    books.settle(freed)
    // The first was only pinned.
    books.pinned = []
    guard
      case .freed(_, let next) = books.machine.makeRoom(
        3 * megabyte, spills: true, isPinned: { _ in false }, retire: books.retire)
    else {
      Issue.record("nothing was freed")
      return
    }
    #expect(next == [.number(1)])
  }

  @Test func theOwnSegmentTellsOldPagesFromItsExtents() throws {
    var books = try Books()
    let own = SegmentID(1)
    // A small object that a store before this one had filled.
    let taken = books.machine.segments[own]!.space.take(0..<pageSize)
    #expect(taken)
    books.machine.segments[own]!.pages[0] = 1
    books.machine.used = pageSize
    books.machine.restoreEntry(
      0,
      .init(
        object: .number(1), segment: own, offset: 0, size: 200, trailerSize: 56, chunkShift: 20, phase: .sealed,
        isDirect: false, isCache: true, isHeld: false, maker: nil))
    books.machine.endRestoring()
    let geometry = try ChunkGeometry(objectSize: 200)
    guard case .needsExtent(let bytes) = try books.machine.receive(.number(2), geometry: geometry, isCache: true),
      let grant = books.machine.growOwn(bytes)
    else {
      Issue.record("no extent")
      return
    }
    books.machine.ownGrown(grant)
    var offsets: [Int] = []
    for number in 2...3 {
      guard case .filling(let filling) = try books.machine.receive(.number(number), geometry: geometry, isCache: true)
      else {
        Issue.record("no room")
        return
      }
      offsets.append(filling.offset)
      let isComplete3 = books.machine.completeReceive(filling.entry)
      #expect(isComplete3)
      _ = books.machine.unpin(filling.entry, retire: books.retire)
    }
    let deletion2 = books.machine.delete(.number(2), retire: books.retire)
    books.settle(try #require(deletion2).freed)
    // The extent is still all of the other's.
    #expect(!books.machine.segments[own]!.space.free.overlaps(grant.range))
    let deletion1 = books.machine.delete(.number(1), retire: books.retire)
    books.settle(try #require(deletion1).freed)
    #expect(books.machine.segments[own]!.pages.isEmpty)
    #expect(books.machine.used == grant.range.count)
  }

  @Test func aDeletedObjectFoundByARestartHidesNoneOfItsName() throws {
    var books = try Books()
    func entry(_ offset: Int, _ phase: StoreStateMachine.Phase) -> StoreStateMachine.Entry {
      .init(
        object: .number(1), segment: SegmentID(1), offset: offset, size: megabyte, trailerSize: 56, chunkShift: 20,
        phase: phase, isDirect: true, isCache: false, isHeld: false, maker: nil)
    }
    books.machine.restoreEntry(0, entry(0, .sealed))
    books.machine.restoreEntry(1, entry(4 * megabyte, .doomed))
    #expect(books.machine.entries.number(of: .number(1)) == 0)
  }

  @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8])
  func whateverHappensTheBooksAreRight(seed: UInt64) throws {
    var simulation = try Simulation(seed: seed)
    for step in 0..<4000 {
      try simulation.step()
      let fault = simulation.fault()
      #expect(fault == nil, "seed \(seed), step \(step): \(simulation.last)")
      if fault != nil { return }
    }
    try simulation.end()
    #expect(simulation.isEmpty, "seed \(seed)")
  }
}

extension StoreStateMachine.Announced {
  fileprivate var refusal: MobulaError.Code? { if case .refused(let error, _) = self { error.code } else { nil } }
}

extension StoreStateMachine.Freed {
  fileprivate static func regions(_ client: UInt64, _ offset: Int) -> Self {
    var freed = Self()
    freed.regions = [.init(client: StoreClientID(client), offset: offset)]
    return freed
  }
}

/// Random events on a machine, some of them those of clients that lie.
private struct Simulation {
  var books = try! Books(capacity: 8 << 20, warmLimit: 1 << 20)
  var random: SeededGenerator
  var last = ""
  private var clients: Set<UInt64> = []
  private var nextClient: UInt64 = 1
  private var nextObject = 1
  private var allocators: [UInt64: ExtentAllocator] = [:]
  private var drafts: [(client: UInt64, object: Int, offset: Int, size: Int)] = []
  private var receiving: [Int] = []
  private var sources: [Int] = []
  private var spilling: [Int] = []
  private var restoring: [Int] = []
  private var leaving: [[StoreStateMachine.Freed.Pages]] = []

  init(seed: UInt64) throws { random = SeededGenerator(seed: seed) }

  private mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<max(1, limit), using: &random) }

  private mutating func settle(_ freed: StoreStateMachine.Freed) {
    for region in freed.regions { _ = allocators[region.client.number]?.free(offset: region.offset) }
    // Entries may be numbered anew: nobody pins what is no more.
    books.pinned.subtract(freed.entries)
    if !freed.pages.isEmpty { leaving.append(freed.pages) }
  }

  private mutating func giveBack() {
    guard !leaving.isEmpty else { return }
    settle(books.machine.gaveBack(leaving.remove(at: below(leaving.count))))
  }

  private mutating func room(_ bytes: Int) {
    let pinned = books.pinned
    switch books.machine.makeRoom(bytes, spills: true, isPinned: { pinned.contains($0) }, retire: books.retire) {
    case .freed(let freed, _): settle(freed)
    case .spill(let number): spilling.append(number)
    case .wait: break
    }
  }

  mutating func step() throws {
    let event = below(17)
    let client = clients.sorted().randomElement(using: &random)
    let object = books.machine.entries.objects.sorted().randomElement(using: &random)
    last = "event \(event)"
    switch event {
    case 0:
      guard clients.count < 5 else { return }
      books.attach(nextClient, user: UInt32(nextClient % 2))
      allocators[nextClient] = ExtentAllocator(maximumExtent: books.machine.maximumExtent)
      clients.insert(nextClient)
      nextClient += 1
    case 1:
      guard below(4) == 0, let client else { return }
      clients.remove(client)
      allocators[client] = nil
      drafts.removeAll { $0.client == client }
      settle(books.machine.detach(StoreClientID(client), retire: books.retire).freed)
    case 2, 3:
      guard let client else { return }
      let size = 1 + below(books.machine.largestSmall / 2)
      let footprint = ObjectTrailer.footprint(try ChunkGeometry(objectSize: size), contained: 0)
      guard let offset = allocators[client]!.allocate(footprint) else {
        let bytes = allocators[client]!.extentSize(for: footprint)
        guard let (grant, slot) = try books.machine.grow(StoreClientID(client), bytes: bytes) else {
          return room(bytes)
        }
        if below(8) == 0 {
          settle(books.machine.notGrown(StoreClientID(client), grant, slot: slot, reserved: []))
        } else {
          allocators[client]!.add(grant.range)
        }
        return
      }
      let announced = books.put(nextObject, client, offset: offset, size: size)
      nextObject += 1
      guard case .sealed = announced else { throw MobulaError(.corrupted, "\(announced)") }
    case 4:
      guard let client else { return }
      let size = books.machine.largestSmall + 1 + below(2 << 20)
      let footprint = ObjectTrailer.footprint(try ChunkGeometry(objectSize: size), contained: 0)
      let id = StoreClientID(client)
      guard let creation = try books.machine.create(.number(nextObject), footprint: footprint, client: id) else {
        return room(StoreStateMachine.pages(footprint))
      }
      if below(8) == 0 {
        settle(books.machine.notCreated(creation, client: id, reserved: []))
      } else {
        drafts.append((client, nextObject, creation.grant.range.lowerBound, size))
      }
      nextObject += 1
    case 5:
      guard !drafts.isEmpty else { return }
      let draft = drafts.remove(at: below(drafts.count))
      if below(3) == 0 {
        settle(books.machine.abort(.number(draft.object), client: StoreClientID(draft.client), offset: draft.offset))
      } else {
        // Sometimes smaller than it was to be.
        let size = below(3) == 0 ? 1 + below(draft.size) : draft.size
        switch books.put(draft.object, draft.client, offset: draft.offset, size: size) {
        case .sealed(_, let freed), .refused(_, let freed): settle(freed)
        case .known: throw MobulaError(.corrupted, "a new object is known")
        }
      }
    case 6:
      // Lies: any object, anywhere.
      guard let client else { return }
      let name = Bool.random(using: &random) ? nextObject + 1_000_000 : below(nextObject)
      nextObject += 1
      let offset = below(20 << 20) / 64 * 64
      // Into its own extents it could lie with success, which would harm it alone.
      let extents = books.machine.clients[StoreClientID(client)]!.extents
      guard !extents.contains(where: { $0.range.contains(offset) }), !drafts.contains(where: { $0.object == name })
      else {
        return
      }
      if case .refused(_, let freed) = books.put(name, client, offset: offset, size: 1 + below(1 << 20)) {
        settle(freed)
      }
    case 7:
      guard let client, let extent = allocators[client]!.extents.randomElement(using: &random) else { return }
      let isEmpty = allocators[client]!.takeEmptyExtents(keeping: 0)
      for extent in isEmpty {
        settle(books.machine.giveBack(StoreClientID(client), offset: extent.lowerBound, size: extent.count))
      }
      // And one that is in use.
      if !isEmpty.contains(extent) {
        settle(books.machine.giveBack(StoreClientID(client), offset: extent.lowerBound, size: extent.count))
      }
    case 8:
      let size = 1 + below(below(2) == 0 ? 2000 : 2 << 20)
      let geometry = try ChunkGeometry(objectSize: size)
      switch try books.machine.receive(.number(nextObject), geometry: geometry, isCache: Bool.random(using: &random)) {
      case .noRoom(let bytes): room(bytes)
      case .needsExtent(let bytes):
        guard let grant = books.machine.growOwn(bytes) else { return room(bytes) }
        if below(8) == 0 { books.machine.notReserved(grant, reserved: []) } else { books.machine.ownGrown(grant) }
      case .filling(let filling): receiving.append(filling.entry)
      }
      nextObject += 1
    case 9:
      guard !receiving.isEmpty else { return }
      let number = receiving.remove(at: below(receiving.count))
      if below(3) == 0 { books.machine.abandonReceive(number) } else { _ = books.machine.completeReceive(number) }
      settle(books.machine.unpin(number, retire: books.retire))
    case 10:
      guard let object, let number = books.machine.pinSource(object) else { return }
      sources.append(number)
    case 11:
      guard !sources.isEmpty else { return }
      settle(books.machine.unpin(sources.remove(at: below(sources.count)), retire: books.retire))
    case 12:
      guard !spilling.isEmpty else { return room(1 + below(4 << 20)) }
      let number = spilling.remove(at: below(spilling.count))
      if below(4) == 0 {
        settle(books.machine.notSpilled(number, retire: books.retire))
      } else {
        settle(books.machine.spilled(number, retire: books.retire).freed)
      }
    case 13:
      if let number = restoring.popLast() {
        if below(3) == 0 {
          settle(books.machine.abandonRestore(number, retire: books.retire))
        } else if !books.machine.completeRestore(number) {
          settle(books.machine.reap(retire: books.retire))
        }
        return
      }
      guard
        let number = books.machine.entries.all.filter({ $0.entry.phase == .spilled }).map(\.number)
          .randomElement(using: &random)
      else { return }
      switch books.machine.beginRestore(number) {
      case .filling(let filling): restoring.append(filling.entry)
      case .noRoom(let bytes): room(bytes)
      case .needsExtent(let bytes):
        if let grant = books.machine.growOwn(bytes) { books.machine.ownGrown(grant) } else { room(bytes) }
      }
    case 14:
      guard let object, let (_, freed) = books.machine.delete(object, retire: books.retire) else { return }
      settle(freed)
    case 15:
      if let object { books.machine.setHeld(object, Bool.random(using: &random)) }
      if let object { books.machine.setCache(object, Bool.random(using: &random)) }
      books.machine.entries.touch(below(1000))
      // Readers pin what is sealed, and let go.
      if let object, let number = books.machine.entries.number(of: object),
        books.machine.entries[number].phase == .sealed
      {
        books.pinned.insert(number)
      }
      if below(2) == 0, let one = books.pinned.sorted().randomElement(using: &random) { books.pinned.remove(one) }
      if let client, let object, let number = try? books.machine.pin(object, client: StoreClientID(client)),
        below(2) == 0
      {
        settle(books.machine.unpin(number, client: StoreClientID(client), retire: books.retire))
      }
    default:
      giveBack()
      settle(books.machine.reap(retire: books.retire))
    }
  }

  /// What is wrong with the books; `nil` when they are right.
  func fault() -> String? {
    let machine = books.machine
    if machine.used > machine.capacity { return "used \(machine.used)" }
    // What is leaving is marked as used in its segment, unless that was closed.
    let leavingClosed = leaving.joined().filter { machine.segments[$0.segment] == nil }.reduce(0) {
      $0 + $1.range.count
    }
    let reserved = machine.segments.values.reduce(0) { $0 + $1.space.reservedBytes + $1.space.pendingBytes }
    if machine.used != reserved + leavingClosed { return "used \(machine.used) of \(reserved) + \(leavingClosed)" }
    if machine.leaving != leaving.joined().reduce(0, { $0 + $1.range.count }) { return "leaving \(machine.leaving)" }
    var counts: [SegmentID: Int] = [:]
    var listed = Set<Int>()
    for tier in StoreStateMachine.Tier.allCases {
      for number in machine.entries.oldest(tier, limit: .max) {
        guard listed.insert(number).inserted, machine.entries.find(number)?.tier == tier else {
          return "list of \(tier)"
        }
      }
    }
    var ranges: [SegmentID: [Range<Int>]] = [:]
    var inExtents: [StoreClientID: [Int: Int]] = [:]
    for (number, entry) in machine.entries.all {
      if entry.isListed != listed.contains(number) { return "entry \(number) is listed: \(entry.isListed)" }
      if entry.phase == .sealed, !entry.isListed, !spilling.contains(number) { return "entry \(number) is in no list" }
      if machine.doomed.contains(number) != (entry.phase == .doomed) { return "entry \(number) is doomed" }
      if entry.phase == .spilled { continue }
      counts[entry.segment, default: 0] += 1
      let range = entry.offset..<entry.offset + entry.footprint
      ranges[entry.segment, default: []].append(range)
      guard let segment = machine.segments[entry.segment] else { return "entry \(number) has no segment" }
      let pages = range.lowerBound / pageSize * pageSize..<StoreStateMachine.pages(range.upperBound)
      if segment.space.free.overlaps(pages) { return "entry \(number) lies in free memory" }
      if let maker = segment.maker, let client = machine.clients[maker], !entry.isDirect,
        let extent = client.extent(of: entry.offset)
      {
        inExtents[maker, default: [:]][extent, default: 0] += 1
      }
    }
    for (id, segment) in machine.segments where segment.entries != counts[id] ?? 0 {
      return "\(segment.entries) entries in segment \(id), not \(counts[id] ?? 0)"
    }
    for (id, client) in machine.clients {
      for (index, extent) in client.extents.enumerated() where extent.entries != inExtents[id]?[index] ?? 0 {
        return "\(extent.entries) entries in an extent of client \(id)"
      }
    }
    for (id, all) in ranges {
      let sorted = all.sorted { $0.lowerBound < $1.lowerBound }
      for (a, b) in zip(sorted, sorted.dropFirst()) where a.upperBound > b.lowerBound {
        return "\(a) and \(b) of segment \(id) overlap"
      }
    }
    return nil
  }

  /// All clients go, all objects are deleted.
  mutating func end() throws {
    for number in spilling { settle(books.machine.notSpilled(number, retire: books.retire)) }
    for number in restoring { settle(books.machine.abandonRestore(number, retire: books.retire)) }
    for number in receiving {
      books.machine.abandonReceive(number)
      settle(books.machine.unpin(number, retire: books.retire))
    }
    for number in sources { settle(books.machine.unpin(number, retire: books.retire)) }
    books.pinned = []
    for client in clients.sorted() { settle(books.machine.detach(StoreClientID(client), retire: books.retire).freed) }
    for object in books.machine.entries.objects.sorted() {
      if let (_, freed) = books.machine.delete(object, retire: books.retire) { settle(freed) }
    }
    settle(books.machine.reap(retire: books.retire))
    while !leaving.isEmpty { giveBack() }
  }

  /// Nothing but warm memory, and the extent that the store keeps for itself.
  var isEmpty: Bool {
    let machine = books.machine
    return machine.entries.isEmpty && machine.doomed.isEmpty && machine.leaving == 0
      && machine.segments.allSatisfy { id, segment in
        segment.entries == 0
          && (id == machine.ownSegment
            ? segment.space.usedBytes == machine.ownExtents.ownedBytes && machine.ownExtents.usedBytes == 0
            : machine.spares.contains(id) && segment.space.usedBytes == 0)
      }
  }
}

extension StoreStateMachine {
  /// One object is not wanted any more; `nil` when it isn't here.
  fileprivate mutating func delete(_ object: ObjectID, retire: Retire) -> (entry: EntryNumber, freed: Freed)? {
    let (deleted, freed) = delete([object], retire: retire)
    return deleted.first.map { ($0, freed) }
  }
}
