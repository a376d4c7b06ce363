import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaStore

/// The store with real memory and its real socket, used by `StoreClient`s of this process.
struct StoreTests {
  private let a = ObjectID(1), b = ObjectID(2)

  @Test(arguments: [1, 5000, 1_048_576, 20_000_000])
  func whatOneClientPutsAnotherMaps(size: Int) async throws {
    let host = try TemporaryStore()
    let bytes = randomBytes(size, seed: UInt64(size))
    let maker = host.store.attach(), reader = host.store.attach()
    let info = try await host.put(a, bytes, by: maker)

    let geometry = try ChunkGeometry(objectSize: size)
    let checksums = (0..<geometry.count).map { index in
      bytes.withUnsafeBytes { crc32c(UnsafeRawBufferPointer(rebasing: $0[geometry.range(of: index)])) }
    }
    #expect(info.geometry == geometry)
    #expect(info.digest == ObjectDigest(geometry: geometry, checksums: checksums))
    #expect(host.store.inventory() == [info])
    #expect(host.store.contains(a) == .sealed)

    let placement = try host.store.pin(a, client: reader)
    #expect(!placement.writable)
    let mapped = try StoreClient(descriptorSocket: host.path).map(placement)
    #expect(mapped.withUnsafeBytes { $0.elementsEqual(bytes) })
    #expect(mapped.writableBytes == nil)
    #expect(Int(bitPattern: mapped.bytes.baseAddress).isMultiple(of: 64))
  }

  @Test(arguments: [100, 3_000_000])
  func aReaderCannotWrite(size: Int) async throws {
    let host = try TemporaryStore()
    let client = host.store.attach()
    try await host.put(a, randomBytes(size, seed: 1), by: client)
    try await expectReadOnly(host.store.pin(a, client: client), at: host)
  }

  @Test func aReplicaCannotBeWrittenByItsReaders() async throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(a, geometry: ChunkGeometry(objectSize: 1000))
    fill(writer, 0, with: 7)
    _ = try writer.complete()
    let placement = try host.store.pin(a, client: host.store.attach())
    try await expectReadOnly(placement, at: host)
    let mapped = try StoreClient(descriptorSocket: host.path).map(placement.again(host.store))
    #expect(mapped.withUnsafeBytes { $0.allSatisfy { $0 == 7 } })
  }

  /// Maps, writes and opens again what a reader's ticket gives; all of it has to fail.
  private func expectReadOnly(_ placement: Placement, at host: TemporaryStore) async throws {
    let descriptor = try StoreClient(descriptorSocket: host.path).fetch(placement.ticket!)
    #expect(throws: MobulaError.self) {
      _ = try MemoryMapping(descriptor.rawValue, count: placement.segmentSize, access: .readWrite)
    }
    #expect(pwrite(descriptor.rawValue, "x", 1, 0) == -1)
    var status = stat()
    #expect(fstat(descriptor.rawValue, &status) == 0)
    #expect(status.st_mode & 0o7777 == 0o400)
    #expect(fcntl(descriptor.rawValue, F_GETFL) & O_ACCMODE == O_RDONLY)
    guard try await canOpenForWriting(MemoryFile.create(name: host.name, size: 4096)) else {
      print("skipped: whether a reader can open a segment again for writing: root, without setpriv")
      return
    }
    #expect(try await !canOpenForWriting(descriptor))
  }

  /// Whether an ordinary user who was given `descriptor` can open its file for writing through `/proc`.
  private func canOpenForWriting(_ descriptor: borrowing OwnedDescriptor) async throws -> Bool {
    let number = descriptor.rawValue
    guard geteuid() == 0 else {
      let opened = open("/proc/self/fd/\(number)", O_RDWR | O_CLOEXEC)
      if opened >= 0 { close(opened) }
      return opened >= 0
    }
    // Root passes over the mode, so a child tries that is root no more.
    let child = try? ChildProcess.spawn(
      "setpriv",
      ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", "exec 3<>/proc/self/fd/0"],
      input: .descriptor(number), errors: .null)
    return await child?.waitForExit().isSuccess ?? false
  }

  @Test func aSegmentIsMappedOnceAndNeedsNoTicketThen() async throws {
    let host = try TemporaryStore()
    let maker = host.store.attach(), reader = host.store.attach()
    try await host.put(a, [1, 2, 3], by: maker)
    try await host.put(b, [4, 5], by: maker)
    let client = StoreClient(descriptorSocket: host.path)
    let first = try client.map(host.store.pin(a, client: reader))
    let second = try host.store.pin(b, client: reader)
    #expect(second.segment == first.placement.segment)
    let mapped = try client.map(second.withoutTicket)
    #expect(mapped.withUnsafeBytes { $0.elementsEqual([4, 5]) })
    #expect(mapped.bytes.baseAddress == first.bytes.baseAddress! + second.offset - first.placement.offset)
  }

  @Test func aMappingThatIsGoneNeedsATicket() async throws {
    let host = try TemporaryStore()
    let maker = host.store.attach()
    try await host.put(a, [1, 2, 3], by: maker)
    let client = StoreClient(descriptorSocket: host.path)
    let placement = try host.store.pin(a, client: maker)
    do { _ = try client.map(placement) }
    #expect(code { _ = try client.map(placement.withoutTicket) } == .notFound)
    #expect(code { _ = try client.map(placement) } == .denied, "a ticket is good once")
  }

  @Test func aPlacementOutsideOfItsSegmentIsRefused() throws {
    let client = StoreClient(descriptorSocket: "/nowhere")
    for (offset, size) in [(0, 4097), (4096, 1), (-1, 10), (0, 0), (.max, 2), (1, .max)] {
      let placement = Placement(
        segment: SegmentID(1), segmentSize: 4096, offset: offset, size: size, writable: false,
        ticket: DescriptorTicket(high: 0, low: 0))
      #expect(code { _ = try client.map(placement) } == .protocolViolation)
    }
  }

  @Test func memoryOfADeletedObjectStaysWhileItIsPinned() async throws {
    let host = try TemporaryStore()
    let bytes = randomBytes(3_000_000, seed: 3)
    let maker = host.store.attach(), reader = host.store.attach()
    try await host.put(a, bytes, by: maker)
    let mapped = try StoreClient(descriptorSocket: host.path).map(host.store.pin(a, client: reader))
    #expect(host.store.delete(a))
    #expect(host.store.contains(a) == nil)
    #expect(host.store.statistics.used == StoreStateMachine.pages(3_000_000))
    try await host.put(a, [1], by: maker)
    #expect(mapped.withUnsafeBytes { $0.elementsEqual(bytes) })
    #expect(openDescriptors(memory: host.name, socket: host.path) == 5, "listener, two of the object, two of the arena")
    host.store.unpin(a, client: reader)
    #expect(host.store.statistics.segments == 1)
    #expect(openDescriptors(memory: host.name, socket: host.path) == 3)
    #expect(mapped.withUnsafeBytes { $0.elementsEqual(bytes) }, "mapped memory outlives the store's descriptors")
  }

  @Test func aClientThatGoesAbortsWhatItDidNotSeal() async throws {
    let host = try TemporaryStore()
    let maker = host.store.attach()
    try host.write(a, randomBytes(100, seed: 1), by: maker)
    try await host.put(b, [1, 2], by: maker)
    #expect(host.store.detach(maker) == [a])
    #expect(host.store.contains(a) == nil && host.store.contains(b) == .sealed)
    let mapped = try StoreClient(descriptorSocket: host.path).map(host.store.pin(b, client: host.store.attach()))
    #expect(mapped.withUnsafeBytes { $0.elementsEqual([1, 2]) })
    await #expect(throws: MobulaError.self) { try await host.store.seal(a, client: maker) }
  }

  @Test func whatMustMakeRoomIsReported() async throws {
    let evicted = Monitor<[ObjectID]>([])
    let host = try TemporaryStore(capacity: ByteCount(1_048_576)) { objects in evicted.update { $0 += objects } }
    let client = host.store.attach()
    try await host.put(a, randomBytes(600_000, seed: 1), by: client)
    #expect(code { _ = try host.store.create(b, size: 600_000, client: client) } == .full)
    host.store.setEvictable(a, true)
    try await host.put(b, randomBytes(600_000, seed: 2), by: client)
    #expect(evicted.read { $0 } == [a])
    #expect(host.store.inventory().map(\.object) == [b])
    #expect(host.store.statistics.used == StoreStateMachine.pages(600_000))
  }

  @Test func allDescriptorsAreGivenBack() async throws {
    let name: String, path: String
    do {
      let host = try TemporaryStore()
      (name, path) = (host.name, host.path)
      let client = host.store.attach()
      for number in 1...20 as ClosedRange<UInt64> {
        let object = ObjectID(number)
        try await host.put(object, randomBytes(number.isMultiple(of: 2) ? 100 : 2_000_000, seed: number), by: client)
        _ = try StoreClient(descriptorSocket: path).map(host.store.pin(object, client: client))
      }
      let writer = try host.store.receive(ObjectID(100), geometry: ChunkGeometry(objectSize: 1000))
      #expect(openDescriptors(memory: name, socket: path) >= 24)
      _ = consume writer
      host.store.close()
    }
    #expect(openDescriptors(memory: name, socket: path) == 0)
    #expect(access(path, F_OK) == -1)
  }
}

extension Placement {
  fileprivate var withoutTicket: Placement {
    Placement(segment: segment, segmentSize: segmentSize, offset: offset, size: size, writable: writable)
  }

  /// The same place with a new ticket.
  fileprivate func again(_ store: Store) -> Placement {
    store.state.withLock {
      $0.placement(Region(segment: segment, offset: offset, size: size), size: segmentSize, writable: writable)
    }
  }
}

/// Writes `byte` all over chunk `index`, which must be the next to claim, and commits it.
func fill(_ writer: any ReplicaWriter, _ index: Int, with byte: UInt8) {
  precondition(writer.claimChunk(from: index) == index)
  let memory = writer.memory(of: index)
  memory.initializeMemory(as: UInt8.self, repeating: byte)
  writer.commit(index, checksum: crc32c(UnsafeRawBufferPointer(memory)))
}
