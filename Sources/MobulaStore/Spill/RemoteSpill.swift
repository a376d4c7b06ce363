internal import MobulaCore
internal import Synchronization

/// What is kept in memory of an object whose bytes are in a `SpillPlace`.
struct RemoteObject: Hashable, Sendable {
  let item: SpillItem
  /// As it is written before the object's bytes, and read again only after a restart.
  let header: SpillHeader

  var object: ObjectID { header.object }
}

/// A store's half of a `SpillPlace`: waits for it, so long and no longer, checks what comes back, and removes what
/// is not needed any more as soon as the place can be reached.
///
/// `write`, `read`, `recover` and `removeAll` block, on a thread of their own: the place's tasks need Swift's.
final class RemoteSpill: Sendable {
  /// How long a place is waited for.
  struct Patience: Sendable {
    /// For a restore, beside the time for its bytes.
    var read = Duration.seconds(60)
    /// Bytes a second that a restore brings at least.
    var leastRate = ByteCount.megabytes(4)
    /// For all that is looked at of what a store left that died: the head gives a host up that is silent for 10 s.
    var recover = Duration.seconds(5)
    /// For the orderly end, 5 s after whose beginning the process is killed.
    var removeAll = Duration.seconds(4)
    /// Before a removal that failed is tried again: the first time, and at most.
    var firstPause = Duration.seconds(1)
    var longestPause = Duration.seconds(60)
    /// Between two looks for an item that is said to be gone, of which there are three: a place that was just
    /// started may not know yet what it has.
    var secondLook = Duration.seconds(1)
  }

  private struct State {
    /// What is needed, what is being written, and what may be needed by the next run: all else in the place can go.
    var needed: Set<String> = []
    /// It is not known what an earlier run of this instance left: no item of this instance can go unasked.
    var keepsInstance = false
    var toRemove: [String] = []
    /// A write has failed, of which something may remain.
    var hasUnfinished = false
    var remover: Task<Void, Never>?
    var sweeper: Task<Void, Never>?
    var cleaner: Task<Void, Never>?
    /// Writes and reads that somebody waits for.
    var running: [UInt64: Task<Void, Never>] = [:]
    var lastRun: UInt64 = 0
    /// For good: nothing is written any more.
    var isEnded = false
  }

  /// How many items are removed at once.
  private static let largestBatch = 1000
  let place: any SpillPlace
  private let instance: SpillInstance
  private let patience: Patience
  private let trouble: @Sendable (MobulaError) -> Void
  private let state = Mutex(State())

  /// - Parameter trouble: told what goes wrong while nobody waits.
  init(
    _ place: any SpillPlace, instance: SpillInstance, patience: Patience = Patience(),
    trouble: @escaping @Sendable (MobulaError) -> Void = { _ in }
  ) {
    self.place = place
    self.instance = instance
    self.patience = patience
    self.trouble = trouble
  }

  // MARK: Objects

  /// Writes an object.
  ///
  /// - Parameter deadline: when it is given up.
  /// - Throws: `MobulaError`: `unavailable` after `removeAll`, else `inputOutput`. The object may be asked for again.
  func write(
    _ header: SpillHeader, bytes: UnsafeRawBufferPointer, until deadline: ContinuousClock.Instant
  ) throws(MobulaError) -> RemoteObject {
    precondition(bytes.count == header.geometry.objectSize, "all of the object's bytes")
    let name = "\(SpillItemName(header.object, instance))"
    guard state.withLock({ $0.isEnded ? false : $0.needed.insert(name).inserted }) else {
      throw MobulaError(.unavailable, "Object \(header.object) can't be spilled, since its store has ended.")
    }
    let (head, size, lent, start) = (header.encoded(), header.fileSize, LentMemory(bytes), ContinuousClock.now)
    defer { lent.takeBack() }
    let result = wait(until: deadline) { [place] in
      try await place.write(name, size: size) { range in
        if range.lowerBound >= head.count {
          return try lent.bytes(range.lowerBound - head.count..<range.upperBound - head.count)
        }
        let first = Array(head[range.clamped(to: 0..<head.count)])
        return range.upperBound <= head.count ? first : first + (try lent.bytes(0..<range.upperBound - head.count))
      }
    }
    switch result {
    case .success(let version):
      return RemoteObject(item: SpillItem(name: name, size: size, version: version), header: header)
    case .failure(let error):
      // It may have come about all the same, or in part.
      remove(name, isUnfinished: true)
      throw refused(size, Self.reason(error))
    case nil:
      remove(name, isUnfinished: true)
      throw refused(size, "it was not written within \(start.duration(to: .now).rounded)")
    }
  }

  private func refused(_ size: Int, _ reason: String) -> MobulaError {
    MobulaError(
      .inputOutput,
      "An object of \(ByteCount(size)) can't be spilled to \(place.title) (\(reason)): repair that, release objects, or give the host another place with --spill."
    )
  }

  /// Reads an object's bytes, of which every one is verified; the item stays.
  ///
  /// - Parameter memory: as many bytes as the object has. They are rubbish after an error.
  /// - Throws: `MobulaError`: `notFound` when the item is gone, `corrupted` when it is not what was written; with
  ///   any other code the object is still there, and may be restored later.
  func read(_ spilled: RemoteObject, into memory: UnsafeMutableRawBufferPointer) throws(MobulaError) {
    let geometry = spilled.header.geometry
    precondition(memory.count == geometry.objectSize, "room for all of the object's bytes")
    let deadline =
      ContinuousClock.now + patience.read
      + .seconds(Double(geometry.objectSize) / Double(max(1, patience.leastRate.bytes)))
    try read(spilled, 0..<geometry.objectSize, into: memory, until: deadline)
    for index in 0..<geometry.count {
      let range = geometry.range(of: index)
      let chunk = UnsafeMutableRawBufferPointer(rebasing: memory[range])
      if crc32c(UnsafeRawBufferPointer(chunk)) == spilled.header.checksums[index] { continue }
      // The way here may have damaged it.
      try read(spilled, range, into: chunk, until: deadline)
      guard crc32c(UnsafeRawBufferPointer(chunk)) == spilled.header.checksums[index] else {
        throw damaged(spilled, "chunk \(index) of \(geometry.count) has a wrong checksum")
      }
    }
  }

  /// Fills `memory` with a range of the object's bytes.
  private func read(
    _ spilled: RemoteObject, _ range: Range<Int>, into memory: UnsafeMutableRawBufferPointer,
    until deadline: ContinuousClock.Instant
  ) throws(MobulaError) {
    let (item, start, lent) = (spilled.item, spilled.header.length + range.lowerBound, LentMemory(memory))
    defer { lent.takeBack() }
    let result = wait(until: deadline) { [place, patience] in
      for look in 1... {
        do {
          return try await place.read(item, start..<start + range.count) { offset, bytes in
            try lent.fill(from: offset - start, with: bytes)
          }
        } catch let error as MobulaError where error.code == .notFound && look < 3 {
          try await Task.sleep(for: patience.secondLook)
        }
      }
    }
    switch result {
    case .success: return
    case .failure(let error) where error.code == .mismatch: throw damaged(spilled, "somebody has replaced it")
    case .failure(let error) where error.code == .notFound:
      throw MobulaError(
        .notFound,
        "Object \(spilled.object) is lost: what was spilled of it to \(place.title) is gone (\(Self.reason(error))). Fetch it again, or make it again."
      )
    case .failure(let error): throw notNow(spilled, error.code, Self.reason(error))
    case nil: throw notNow(spilled, .deadlineExceeded, "it did not come in time")
    }
  }

  private func damaged(_ spilled: RemoteObject, _ how: String) -> MobulaError {
    MobulaError(
      .corrupted,
      "Object \(spilled.object) is lost: \(spilled.item.name) in \(place.title) is not what was written, \(how). Fetch it again, or make it again."
    )
  }

  private func notNow(_ spilled: RemoteObject, _ code: MobulaError.Code, _ reason: String) -> MobulaError {
    // Those by which an object is given up are for an object that is lost.
    let isFatal = [MobulaError.Code.notFound, .corrupted, .inputOutput, .full].contains(code)
    return MobulaError(
      isFatal ? .unavailable : code,
      "Object \(spilled.object) can't be restored from \(place.title) now (\(reason)): it stays there; ask for it again later."
    )
  }

  // MARK: Removing

  /// Removes an item in the background, as soon as the place can be reached.
  ///
  /// - Parameter isUnfinished: whether it was not written to its end, as far as is known.
  func remove(_ name: String, isUnfinished: Bool = false) {
    state.withLock { state in
      state.needed.remove(name)
      // Everything goes, or has gone.
      if state.isEnded { return }
      state.toRemove.append(name)
      if state.remover == nil { state.remover = Task { await self.removeQueued() } }
      guard isUnfinished else { return }
      state.hasUnfinished = true
      if state.sweeper == nil { state.sweeper = Task { await self.sweep() } }
    }
  }

  private func removeQueued() async {
    var (pause, size) = (patience.firstPause, Self.largestBatch)
    while true {
      let batch = state.withLock { state in
        // Under the lock in which `remove` looks for this task.
        if state.toRemove.isEmpty { state.remover = nil }
        return Array(state.toRemove.prefix(size))
      }
      if batch.isEmpty { return }
      do {
        try await place.remove(batch)
        state.withLock { $0.toRemove.removeFirst(batch.count) }
        (pause, size) = (patience.firstPause, min(Self.largestBatch, size * 10))
      } catch {
        if Task.isCancelled { return }
        if pause == patience.firstPause { report("what is not needed any more can't be removed yet", error) }
        // One that can't be removed ends up alone, behind all others.
        state.withLock { state in
          state.toRemove.removeFirst(batch.count)
          state.toRemove += batch
        }
        size = max(1, size / 10)
        guard (try? await Task.sleep(for: pause)) != nil else { return }
        pause = min(patience.longestPause, pause * 2)
      }
    }
  }

  /// Removes what remains of writes that failed; apart from the queue, for which this is nothing to wait for.
  private func sweep() async {
    var pause = patience.firstPause
    while true {
      let isDone = state.withLock { state in
        // Under the lock in which `remove` looks for this task.
        if !state.hasUnfinished { state.sweeper = nil }
        defer { state.hasUnfinished = false }
        return !state.hasUnfinished
      }
      if isDone { return }
      do {
        try await removeUnfinished()
        pause = patience.firstPause
      } catch {
        if Task.isCancelled { return }
        if pause == patience.firstPause { report("what remains of failed writes can't be removed yet", error) }
        state.withLock { $0.hasUnfinished = true }
        guard (try? await Task.sleep(for: pause)) != nil else { return }
        pause = min(patience.longestPause, pause * 2)
      }
    }
  }

  /// Removes in the background what other runs of this host have left; until that has worked, or the end.
  func clean() {
    state.withLock { state in
      guard !state.isEnded, state.cleaner == nil else { return }
      state.cleaner = Task {
        var pause = patience.firstPause
        while !Task.isCancelled {
          do {
            return try await removeUnneeded()
          } catch {
            if Task.isCancelled { return }
            if pause == patience.firstPause { report("what an earlier run left there can't be removed yet", error) }
            try? await Task.sleep(for: pause)
            pause = min(patience.longestPause, pause * 2)
          }
        }
      }
    }
  }

  private func removeUnneeded() async throws {
    // First the list: what is begun after it is needed, or will be removed by who began it.
    let names = try await place.items().map(\.name)
    let (needed, keepsInstance) = state.withLock { ($0.needed, $0.keepsInstance) }
    let stale = names.filter {
      !needed.contains($0) && !(keepsInstance && SpillItemName($0)?.instance == instance)
    }
    var failure: (any Error)?
    for start in stride(from: 0, to: stale.count, by: Self.largestBatch) {
      do {
        try await place.remove(Array(stale[start..<min(stale.count, start + Self.largestBatch)]))
      } catch {
        try Task.checkCancellation()
        failure = failure ?? error
      }
    }
    try await removeUnfinished()
    if let failure { throw failure }
  }

  private func removeUnfinished() async throws {
    try await place.removeUnfinished { name in self.state.withLock { $0.needed.contains(name) } }
  }

  private func report(_ what: String, _ error: any Error) {
    trouble(MobulaError(.unavailable, "At \(place.title) \(what): \(Self.reason(error))."))
  }

  // MARK: Start and end

  /// The objects that an earlier run of this instance left, for a store that has started again. What is damaged is
  /// told as trouble, and lost. What could not be looked at in time is told too; it stays where it is for the next
  /// run.
  func recover() -> [RemoteObject] {
    let deadline = ContinuousClock.now + patience.recover
    let listed = wait(until: deadline) { [place, patience] in
      while true {
        do {
          return try await place.items()
        } catch {
          if Task.isCancelled || ContinuousClock.now + patience.firstPause > deadline { throw error }
          try await Task.sleep(for: patience.firstPause)
        }
      }
    }
    guard case .success(let items) = listed else {
      state.withLock { $0.keepsInstance = true }
      var error = MobulaError(.deadlineExceeded, "it did not answer in time")
      if case .failure(let failure) = listed { error = failure }
      report("what this host has spilled can't be listed, and stays until its store starts again", error)
      return []
    }
    let own = items.filter { SpillItemName($0.name)?.instance == instance }
    let examined = Mutex<[String: Examined]>([:])
    _ = wait(until: deadline) { [self] in
      var rest = own
      while true {
        rest = await examine(rest) { name, result in examined.withLock { $0[name] = result } }
        if rest.isEmpty { return }
        try await Task.sleep(for: patience.firstPause)
      }
    }
    return recovered(own, examined.withLock { $0 })
  }

  /// What is known of an item that was read.
  private enum Examined {
    case intact(RemoteObject)
    case damaged
  }

  /// Settles what becomes of each of this instance's items.
  private func recovered(_ own: [SpillItem], _ examined: [String: Examined]) -> [RemoteObject] {
    var found: [ObjectID: RemoteObject] = [:]
    var (needed, unread, damaged): (Set<String>, Set<ObjectID>, Set<ObjectID>) = ([], [], [])
    for item in own {
      let object = SpillItemName(item.name)!.object
      switch examined[item.name] {
      case .intact(let spilled):
        // Of two copies, one goes.
        if found[object] != nil { continue }
        found[object] = spilled
        needed.insert(item.name)
      case .damaged: damaged.insert(object)
      case nil:
        unread.insert(object)
        needed.insert(item.name)
      }
    }
    state.withLock { $0.needed.formUnion(needed) }
    unread.subtract(found.keys)
    damaged.subtract(found.keys)
    damaged.subtract(unread)
    let count = found.count + unread.count + damaged.count
    if !damaged.isEmpty {
      report(
        "\(damaged.count) of \(count) objects of this host are lost",
        MobulaError(.corrupted, "what was spilled of them is damaged"))
    }
    if !unread.isEmpty {
      report(
        "\(unread.count) of \(count) objects of this host stay until its store starts again",
        MobulaError(.deadlineExceeded, "what was spilled of them can't be read in time"))
    }
    return found.values.sorted { $0.object < $1.object }
  }

  /// Reads the items' headers, as many at a time as a place takes well.
  ///
  /// - Returns: those that can't be read now.
  private func examine(
    _ items: [SpillItem], _ tell: @escaping @Sendable (String, Examined) -> Void
  ) async -> [SpillItem] {
    await withTaskGroup(of: SpillItem?.self) { group in
      var failed: [SpillItem] = []
      for (number, item) in items.enumerated() {
        if number >= 16, case let item?? = await group.next() { failed.append(item) }
        group.addTask {
          guard let result = try? await self.examined(item) else { return item }
          tell(item.name, result)
          return nil
        }
      }
      for await case let item? in group { failed.append(item) }
      return failed
    }
  }

  /// - Throws: when nothing can be said of the item.
  private func examined(_ item: SpillItem) async throws -> Examined {
    // The way here may have damaged it once.
    for _ in 1...2 {
      do {
        return .intact(try await examine(item))
      } catch let error as MobulaError where error.code == .corrupted {}
    }
    return .damaged
  }

  /// Reads an item's header.
  ///
  /// - Throws: `MobulaError`: `corrupted` when it came, and can't be what was written.
  private func examine(_ item: SpillItem) async throws -> RemoteObject {
    let title = "\(item.name) in \(place.title)"
    guard item.size >= SpillHeader.alignment else { throw SpillHeader.damaged(title, "it has \(item.size) bytes only") }
    var bytes = try await bytes(of: item, 0..<SpillHeader.alignment)
    let length = try SpillHeader.length(ofPrefix: bytes, fileSize: item.size, file: title)
    if length > bytes.count { bytes += try await self.bytes(of: item, bytes.count..<length) }
    let header = try SpillHeader(decoding: bytes, fileSize: item.size, file: title)
    guard header.object == SpillItemName(item.name)?.object else {
      throw SpillHeader.damaged(title, "it holds another object")
    }
    return RemoteObject(item: item, header: header)
  }

  private func bytes(of item: SpillItem, _ range: Range<Int>) async throws -> [UInt8] {
    let bytes = Mutex([UInt8](repeating: 0, count: range.count))
    do {
      try await place.read(item, range) { offset, piece in
        try bytes.withLock { bytes throws(MobulaError) in
          guard offset >= range.lowerBound, offset - range.lowerBound + piece.count <= bytes.count else {
            throw MobulaError(.protocolViolation, "More bytes came from a spill place than were asked for.")
          }
          bytes.replaceSubrange(offset - range.lowerBound..<offset - range.lowerBound + piece.count, with: piece)
        }
      }
    } catch let error as MobulaError where error.code == .corrupted {
      // On the way here: of the item it says nothing.
      throw MobulaError(.unavailable, error.message)
    }
    return bytes.withLock { $0 }
  }

  /// The end begins: nothing is written any more, and whoever waits gets an error.
  func end() {
    let tasks = state.withLock { state in
      state.isEnded = true
      return Array(state.running.values) + [state.remover, state.sweeper, state.cleaner].compactMap { $0 }
    }
    for task in tasks { task.cancel() }
  }

  /// The orderly end of a store: removes everything that is there, in the time that there is.
  ///
  /// - Parameter limit: when it must be over, even if that is sooner.
  func removeAll(until limit: ContinuousClock.Instant? = nil) {
    end()
    state.withLock { state in
      state.needed = []
      state.keepsInstance = false
    }
    let deadline = ContinuousClock.now + patience.removeAll
    let result = wait(until: min(deadline, limit ?? deadline), isLast: true) { try await self.removeUnneeded() }
    switch result {
    case .success: return
    case .failure(let error): report("what this host spilled stays until it starts again", error)
    case nil:
      report(
        "what this host spilled stays until it starts again", MobulaError(.deadlineExceeded, "it is not fast enough"))
    }
  }

  // MARK: Waiting

  /// Blocks until `body` has ended; `nil` at the deadline, or after `end`, with `body` cancelled.
  ///
  /// - Parameter isLast: whether it may run after `end`.
  private func wait<Value: Sendable>(
    until deadline: ContinuousClock.Instant, isLast: Bool = false, _ body: @escaping @Sendable () async throws -> Value
  ) -> Result<Value, MobulaError>? {
    let outcome = Monitor<Result<Value, MobulaError>?>(nil)
    let ended = Result<Value, MobulaError>.failure(MobulaError(.unavailable, "the store has ended"))
    let number = state.withLock { state -> UInt64? in
      if state.isEnded, !isLast { return nil }
      state.lastRun += 1
      state.running[state.lastRun] = Task {
        let result: Result<Value, MobulaError>
        do {
          result = .success(try await body())
        } catch let error as MobulaError {
          result = .failure(error)
        } catch is CancellationError {
          result = ended
        } catch {
          result = .failure(MobulaError(.unavailable, "\(error)"))
        }
        outcome.update { $0 = result }
      }
      return state.lastRun
    }
    guard let number else { return ended }
    let result = (try? outcome.wait(until: deadline) { $0 }) ?? nil
    let task = state.withLock { $0.running.removeValue(forKey: number) }
    if result == nil { task?.cancel() }
    return result
  }

  /// An error's sentence, as a part of another.
  private static func reason(_ error: any Error) -> String {
    let text = (error as? MobulaError)?.message ?? "\(error)"
    return text.hasSuffix(".") ? String(text.dropLast()) : text
  }
}

extension Duration {
  /// In words, to the second.
  fileprivate var rounded: String { "\(max(1, Int((self / .seconds(1)).rounded()))) s" }
}
