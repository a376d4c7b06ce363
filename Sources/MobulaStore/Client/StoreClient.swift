internal import CMobula
internal import Glibc
public import MobulaCore
internal import Synchronization

/// A process's view of its host's store.
///
/// `pin` and `seal` make no system call as long as the segment is mapped and the store's thread awake
/// (<doc:ReadProtocol>). All methods may be called from any thread. What the client has mapped is good
/// even while the store's process is down; calls wait for it to come back.
public final class StoreClient: Sendable {
  public let id: StoreClientID
  /// Shows a host, started again perhaps, that this process is this client.
  package let secret: ClientSecret
  let index: IndexReader
  let page: ClientPage
  let own: SegmentID
  let ownMapping: MemoryMapping
  let segments = MappedSegments()
  let doorbell: SharedDescriptor
  /// For calls that are answered at once, and for those that may wait for room.
  private let quick: StoreCalls
  let growing: StoreCalls
  let creating: StoreCalls
  let writing: Mutex<WritingState>
  /// What was read from spill files, by its pin.
  private let privates = Mutex<[Int: MemoryMapping]>([:])

  struct WritingState: Sendable {
    var allocator: ExtentAllocator
  }

  /// Attaches to the store at `path`.
  ///
  /// - Parameters:
  ///   - ticket: from the store, over an authenticated connection.
  ///   - name: for people who look who pins what.
  /// - Throws: `MobulaError`: `denied` for a ticket that is no good, `unavailable` when no store answers,
  ///   `mismatch` for one of another version.
  package init(socket path: String, ticket: DescriptorTicket, name: String) throws(MobulaError) {
    let socket = try StoreCalls.connect(path)
    // So that the store knows of this process's end, from whatever process namespace.
    let process = mobula_open_process(getpid())
    defer { if process >= 0 { close(process) } }
    let answer = try StoreCalls.exchange(
      .attach, [ticket.high, ticket.low], text: name, descriptors: process >= 0 ? [process] : [], on: socket)
    guard answer.words.count == 4, answer.descriptors.count == 4, answer.words[2] < 1 << 50,
      let extent = Int(exactly: answer.words[3]), extent >= 65_536, extent <= 16 << 20, extent & (extent - 1) == 0
    else {
      throw MobulaError(
        .protocolViolation, "The store's answer has not what was asked for: use the same mobula on both sides.")
    }
    id = StoreClientID(answer.words[0])
    own = SegmentID(answer.words[1])
    try Self.checkSize(of: answer.descriptors[0], IndexLayout.size)
    index = IndexReader(
      try MemoryMapping(answer.descriptors[0].rawValue, count: IndexLayout.size, access: .readOnly))
    try Self.checkSize(of: answer.descriptors[1], ClientPage.size)
    page = ClientPage(try MemoryMapping(answer.descriptors[1].rawValue, count: ClientPage.size, access: .readWrite))
    try Self.checkSize(of: answer.descriptors[2], Int(answer.words[2]))
    ownMapping = try MemoryMapping(answer.descriptors[2].rawValue, count: Int(answer.words[2]), access: .readWrite)
    ownMapping.adviseHugePages()
    doorbell = answer.descriptors[3]
    secret = page.secret
    writing = Mutex(WritingState(allocator: ExtentAllocator(maximumExtent: extent)))
    quick = StoreCalls(path: path, client: id, secret: secret, socket: socket)
    growing = StoreCalls(path: path, client: id, secret: secret, socket: nil)
    creating = StoreCalls(path: path, client: id, secret: secret, socket: nil)
    let mapping = ownMapping
    try segments.add(own.number) { () throws(MobulaError) in mapping }
  }

  // Every view and draft keeps the client: nothing is pinned or written any more.
  deinit { quick.tryOnce(.detach, []) }

  /// A file that is smaller than promised would end in a SIGBUS later.
  private static func checkSize(of descriptor: SharedDescriptor, _ size: Int) throws(MobulaError) {
    var status = stat()
    try systemCall("Shared memory can't be examined") { fstat(descriptor.rawValue, &status) }
    guard size > 0, status.st_size >= size else {
      throw MobulaError(
        .protocolViolation,
        "The store gave \(status.st_size) bytes of shared memory, not \(size): use the same mobula on both sides.")
    }
  }

  /// Wakes the store's thread if it sleeps: our announcement before our look, as there its word before its look.
  func ringIfAsleep() {
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    if index.header(.isAsleep).pointee.load(ordering: .relaxed) != 0 {
      var one: UInt64 = 1
      _ = write(doorbell.rawValue, &one, 8)
    }
  }

  // MARK: Reading

  /// Pins a sealed object and shows its bytes, without a system call once its segment is mapped.
  ///
  /// - Returns: `nil` when the index doesn't have it: it is not here, not sealed, on disk, or was announced
  ///   a moment ago; `pinSlowly` finds out.
  /// - Throws: `MobulaError` when its segment can't be mapped.
  @inline(__always)
  public func pin(_ object: ObjectID) throws(MobulaError) -> PinnedBytes? {
    while true {
      guard let found = index.find(object) else { return nil }
      guard let pin = page.takePin(found.entry, from: Self.lane) else { return nil }
      atomicMemoryFence(ordering: .sequentiallyConsistent)
      guard index.isStill(found) else {
        page.releasePin(pin)
        continue
      }
      page.noteUse(found.entry)
      if let (base, count) = segments.find(found.segment), found.offset >= 0, found.size > 0,
        found.size <= count, found.offset <= count - found.size
      {
        return PinnedBytes(
          bytes: UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: base + UInt(found.offset)), count: found.size), pin: pin, client: self)
      }
      let pinned = PinnedBytes(bytes: UnsafeRawBufferPointer(start: nil, count: 0), pin: pin, client: self)
      try map(found)
      _ = consume pinned
    }
  }

  /// Where a thread looks for a free pin word first: threads stay out of each other's cache lines.
  private static var lane: Int {
    @inline(__always) get { Int(truncatingIfNeeded: UInt64(pthread_self()) >> 12 & 31) * 8 }
  }

  /// Maps a segment, which stays as long as its object is pinned.
  @inline(never)
  private func map(_ found: IndexReader.Found) throws(MobulaError) {
    try mapSegment(found.segment)
    guard let (_, count) = segments.find(found.segment), found.offset >= 0, found.size > 0, found.size <= count,
      found.offset <= count - found.size
    else {
      throw MobulaError(
        .protocolViolation,
        "The store placed an object outside of segment \(found.segment): stop the host and report this.")
    }
  }

  func mapSegment(_ number: UInt64) throws(MobulaError) {
    let quick = quick
    try segments.add(number) { () throws(MobulaError) in
      let answer = try quick.call(.segment, [number])
      guard let size = answer.words.first, size < 1 << 50, let descriptor = answer.descriptors.first else {
        throw MobulaError(.protocolViolation, "The store gave no segment: use the same mobula on both sides.")
      }
      try Self.checkSize(of: descriptor, Int(size))
      let mapping = try MemoryMapping(descriptor.rawValue, count: Int(size), access: .readOnly)
      mapping.adviseHugePages()
      return mapping
    }
  }

  /// Pins an object by a call, when `pin` did not find it: what was announced is taken in before.
  ///
  /// - Throws: `MobulaError`: `notFound`; `unavailable` while it is arriving, being written, or on disk.
  public func pinSlowly(_ object: ObjectID) throws(MobulaError) -> PinnedBytes {
    let answer = try quick.call(.pin, [object.high, object.low])
    guard answer.words.count == 4, answer.words[0] < UInt64(IndexLayout.maximumEntries), answer.words[2] < 1 << 56,
      answer.words[3] < 1 << 56
    else { throw MobulaError(.protocolViolation, "The store's answer has not what was asked for.") }
    var byCall = PinnedBytes(
      bytes: UnsafeRawBufferPointer(start: nil, count: 0), pin: -1 - Int(answer.words[0]), client: self)
    try mapSegment(answer.words[1])
    let (offset, size) = (Int(answer.words[2]), Int(answer.words[3]))
    guard let (base, count) = segments.find(answer.words[1]), size > 0, size <= count, offset <= count - size else {
      throw MobulaError(.protocolViolation, "The store placed an object outside of its segment.")
    }
    // A pin of our own is let go without a word.
    if let own = try pin(object) { return own }
    let bytes = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: base + UInt(offset)), count: size)
    byCall.show(bytes)
    return byCall
  }

  /// Lets a pin go. Negative ones are by call, and announced.
  @inline(__always)
  func release(_ pin: Int) {
    if pin >= 0 { page.releasePin(pin) } else { releaseByCall(-1 - pin) }
  }

  @inline(never)
  private func releaseByCall(_ entry: Int) {
    if entry >= Self.firstOwn { return privates.withLock { $0[entry] = nil } }
    writing.withLock { _ in
      // A ring that stays full is a store that is gone: the pin goes with it.
      _ = announce(ClientPage.Announcement(kind: .unpin, offset: entry))
    }
  }

  // MARK: Spilled objects

  /// Numbers from here on, which no entry has, are of memory of this process's own.
  private static let firstOwn = 1 << 40

  /// Reads an object from its spill file into memory of this process's own: for a store that has no room for it.
  /// Every byte is verified.
  ///
  /// - Throws: `MobulaError`: `notFound`; `unavailable` when it is in memory by now; `full` when this process has no
  ///   memory either; `corrupted`.
  public func readSpilled(_ object: ObjectID) throws(MobulaError) -> PinnedBytes {
    let answer = try quick.call(.spilled, [object.high, object.low])
    guard let descriptor = answer.descriptors.first else {
      throw MobulaError(.protocolViolation, "The store's answer has not what was asked for.")
    }
    let file = try SpillFile(descriptor, path: "of object \(object)")
    let header = try file.header()
    guard header.object == object else {
      throw MobulaError(.protocolViolation, "The store gave the spill file of another object than \(object).")
    }
    let size = header.geometry.objectSize
    // Reserved first: no memory is an error then, and no signal.
    let memory = try MemoryFile.create(name: "mobula-own", size: size)
    let mapping = try MemoryMapping(memory.rawValue, count: size, access: .readWrite)
    try file.read(into: mapping.bytes, header: header)
    let number = privates.withLock { privates in
      var number = Self.firstOwn + privates.count
      while privates[number] != nil { number += 1 }
      privates[number] = mapping
      return number
    }
    return PinnedBytes(bytes: UnsafeRawBufferPointer(mapping.bytes), pin: -1 - number, client: self)
  }

  // MARK: Calls

  /// Waits until this object's announcement was taken in.
  ///
  /// - Throws: why it was refused: `alreadyExists`, `cancelled` when it was deleted meanwhile.
  public func confirm(_ object: ObjectID) throws(MobulaError) {
    _ = try quick.call(.confirm, [object.high, object.low])
  }

  func abort(_ object: ObjectID, offset: Int) {
    _ = try? quick.call(.abort, [object.high, object.low, UInt64(offset)])
  }

  /// Under `writing`'s lock: announces, waiting for the store to make room in the ring.
  func announce(_ announcement: ClientPage.Announcement) -> Bool {
    var tries = 0
    while !page.announce(announcement) {
      ringIfAsleep()
      usleep(tries < 100 ? 20 : 1000)
      tries += 1
      // The store may be on its way back: half a minute.
      if tries > 30_000 { return false }
    }
    ringIfAsleep()
    return true
  }
}

/// A pinned object's bytes: they stay where they are, and as they are, as long as this lives.
public struct PinnedBytes: ~Copyable, Sendable {
  /// Not to be used beyond the life of the pin.
  public nonisolated(unsafe) private(set) var bytes: UnsafeRawBufferPointer
  private let pin: Int
  private let client: StoreClient

  @inline(__always)
  init(bytes: UnsafeRawBufferPointer, pin: Int, client: StoreClient) {
    self.bytes = bytes
    self.pin = pin
    self.client = client
  }

  @inline(__always)
  deinit { client.release(pin) }

  /// The same pin, for the bytes that it is of.
  mutating func show(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }
}
