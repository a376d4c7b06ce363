internal import Glibc
public import MobulaCore
internal import Synchronization

/// An object that this process is writing; `seal` makes it immutable and known, and a draft that goes
/// without is given up.
public struct ObjectDraft: ~Copyable, Sendable {
  public let object: ObjectID
  public let geometry: ChunkGeometry
  /// Whether the store knows of it already.
  private let isBig: Bool
  private let offset: Int
  private let contains: [ObjectID]
  private let client: StoreClient
  private var isSealed = false

  init(
    _ object: ObjectID, _ geometry: ChunkGeometry, offset: Int, isBig: Bool, contains: [ObjectID], client: StoreClient
  ) {
    self.object = object
    self.geometry = geometry
    self.offset = offset
    self.isBig = isBig
    self.contains = contains
    self.client = client
  }

  deinit { if !isSealed { client.giveUp(object, offset: offset, isBig: isBig) } }

  /// The bytes to write, `geometry.objectSize` of them; of no use once the draft is sealed or gone.
  public var memory: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: client.ownMapping.bytes[offset..<offset + geometry.objectSize])
  }

  /// Writes the bytes piece by piece, which gives their checksums: as many as `geometry` says in all.
  package func writer() -> ChecksummingWriter { ChecksummingWriter(memory, geometry: geometry) }

  /// Announces the object: from now on every process of the host can pin it, though this one die.
  ///
  /// - Parameters:
  ///   - checksums: the CRC32C of each chunk, as `writer` gives them; `nil`, and they are computed.
  ///   - holds: whether this process holds the object, which is for the host to know.
  /// - Throws: `MobulaError` (`unavailable`) when the store takes no announcements.
  public consuming func seal(checksums: [UInt32]? = nil, holds: Bool = false) throws(MobulaError) {
    let footprint = ObjectTrailer.footprint(geometry, contained: contains.count)
    let region = UnsafeMutableRawBufferPointer(rebasing: client.ownMapping.bytes[offset..<offset + footprint])
    if let checksums {
      precondition(checksums.count == geometry.count, "one checksum a chunk")
      ObjectTrailer.write(object, geometry, checksums: checksums, contains: contains, to: region)
    } else if geometry.count == 1 {
      // Small objects are sealed without an allocation, which the closure below would be.
      let checksum = CollectionOfOne(crc32c(UnsafeRawBufferPointer(memory)))
      ObjectTrailer.write(object, geometry, checksums: checksum, contains: contains, to: region)
    } else {
      let bytes = UnsafeRawBufferPointer(memory)
      let geometry = geometry
      let checksums = (0..<geometry.count).lazy.map {
        crc32c(UnsafeRawBufferPointer(rebasing: bytes[geometry.range(of: $0)]))
      }
      ObjectTrailer.write(object, geometry, checksums: checksums, contains: contains, to: region)
    }
    let announcement = ClientPage.Announcement(
      kind: .put, holds: holds, object: object, offset: offset, size: geometry.objectSize,
      chunkShift: geometry.chunkShift,
      trailerSize: ObjectTrailer.size(chunks: geometry.count, contained: contains.count))
    isSealed = true
    guard client.writing.withLock({ _ in client.announce(announcement) }) else {
      throw MobulaError(
        .unavailable, "The store takes no objects (object \(object)): is its host still running (`mobula status`)?")
    }
  }
}

extension StoreClient {
  /// Memory for a new object. Waits for room, in a call, when this process's own memory has none.
  ///
  /// - Parameters:
  ///   - size: bytes; at least one.
  ///   - contains: the objects whose references will lie inside.
  ///   - patience: how long to wait for room; the store may be less patient.
  /// - Throws: `MobulaError`: `full` with the numbers; `alreadyExists` (only big objects are told so soon,
  ///   others by `confirm`); `invalidArgument`; `unavailable`.
  public func draft(
    _ object: ObjectID, size: Int, contains: [ObjectID] = [], patience: Duration = .seconds(60)
  ) throws(MobulaError) -> ObjectDraft {
    guard let draft = try draftWithoutWaiting(object, size: size, contains: contains) else {
      return try draftWaiting(object, size: size, contains: contains, patience: patience)
    }
    return draft
  }

  /// As `draft`, in this process's own memory without any call; `nil` when there is none left, or the object is big.
  public func draftWithoutWaiting(
    _ object: ObjectID, size: Int, contains: [ObjectID] = []
  ) throws(MobulaError) -> ObjectDraft? {
    let (geometry, footprint) = try shape(size, contains)
    guard footprint <= largestSmall else { return nil }
    let offset = writing.withLock { state in
      page.takeReturns { _ = state.allocator.free(offset: $0) }
      if state.allocator.emptyExtents > 2 { giveBackExtents(&state) }
      return state.allocator.allocate(footprint)
    }
    return offset.map { ObjectDraft(object, geometry, offset: $0, isBig: false, contains: contains, client: self) }
  }

  private func shape(_ size: Int, _ contains: [ObjectID]) throws(MobulaError) -> (ChunkGeometry, footprint: Int) {
    guard size > 0 else {
      throw MobulaError(
        .invalidArgument, "An object of \(size) bytes can't be stored: a value has at least its header.")
    }
    let geometry = try ChunkGeometry(objectSize: size)
    guard contains.count <= ObjectTrailer.largestContained(objectSize: size) else {
      throw MobulaError(
        .invalidArgument,
        "An object of \(size) bytes can't contain \(contains.count) references, which take 16 bytes each at least.")
    }
    return (geometry, ObjectTrailer.footprint(geometry, contained: contains.count))
  }

  /// The largest footprint that goes into an extent.
  private var largestSmall: Int {
    min(StoreStateMachine.largestSmall, writing.withLock { $0.allocator.maximumExtent } / 4)
  }

  private func giveBackExtents(_ state: inout WritingState) {
    for extent in state.allocator.takeEmptyExtents(keeping: 1) {
      _ = announce(ClientPage.Announcement(kind: .giveBack, offset: extent.lowerBound, size: extent.count))
    }
  }

  private func draftWaiting(
    _ object: ObjectID, size: Int, contains: [ObjectID], patience: Duration
  ) throws(MobulaError) -> ObjectDraft {
    let (geometry, footprint) = try shape(size, contains)
    let deadline = ContinuousClock.now + patience
    func milliseconds() -> UInt64 { UInt64(max(0, ContinuousClock.now.duration(to: deadline) / .milliseconds(1))) }
    if footprint > largestSmall {
      let answer = try creating.call(
        .create, [object.high, object.low, UInt64(footprint), milliseconds()], within: patience)
      guard let offset = answer.words.first, offset < UInt64(ownMapping.bytes.count),
        footprint <= ownMapping.bytes.count - Int(offset)
      else { throw MobulaError(.protocolViolation, "The store placed an object outside of its segment.") }
      return ObjectDraft(object, geometry, offset: Int(offset), isBig: true, contains: contains, client: self)
    }
    while true {
      let bytes = writing.withLock { $0.allocator.extentSize(for: footprint) }
      let answer = try growing.call(.grow, [UInt64(bytes), milliseconds()], within: patience)
      guard answer.words.count == 2, answer.words[0] < UInt64(ownMapping.bytes.count),
        Int(answer.words[1]) <= ownMapping.bytes.count - Int(answer.words[0])
      else { throw MobulaError(.protocolViolation, "The store granted memory outside of its segment.") }
      let extent = Int(answer.words[0])..<Int(answer.words[0] + answer.words[1])
      if !extent.isEmpty { writing.withLock { $0.allocator.add(extent) } }
      if let draft = try draftWithoutWaiting(object, size: size, contains: contains) { return draft }
      guard ContinuousClock.now < deadline else {
        throw MobulaError(
          .full, "The store found no room for \(ByteCount(footprint)) within \(patience): release objects.")
      }
      if extent.isEmpty { usleep(1000) }
    }
  }

  /// A draft that is not sealed.
  func giveUp(_ object: ObjectID, offset: Int, isBig: Bool) {
    if isBig { abort(object, offset: offset) } else { _ = writing.withLock { $0.allocator.free(offset: offset) } }
  }
}
