internal import MobulaCore
internal import Synchronization

/// Looks at what an earlier run of a store has left in a `SpillPlace`.
struct RemoteRecovery: Sendable {
  /// What was found.
  struct Found: Sendable {
    var objects: [RemoteObject]
    /// The items that stay; `nil` when it is not known which there are.
    var needed: Set<String>?
  }

  let place: any SpillPlace
  let instance: SpillInstance
  let patience: RemoteSpill.Patience
  let calls: PlaceCalls
  let trouble: @Sendable (MobulaError) -> Void

  /// The objects that an earlier run of this instance left, for a store that has started again. What is damaged is
  /// told as trouble, and lost. What could not be looked at in time is told too; it stays where it is for the next
  /// run.
  func run() -> Found {
    let deadline = ContinuousClock.now + patience.recover
    let listed = calls.wait(until: deadline) { [place, patience] in
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
      var error = MobulaError(.deadlineExceeded, "it did not answer in time")
      if case .failure(let failure) = listed { error = failure }
      report("what this host has spilled can't be listed, and stays until its store starts again", error)
      return Found(objects: [], needed: nil)
    }
    let own = items.filter { SpillItemName($0.name)?.instance == instance }
    let examined = Mutex<[String: Examined]>([:])
    _ = calls.wait(until: deadline) { [self] in
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

  /// Decides what becomes of each of this instance's items.
  private func recovered(_ own: [SpillItem], _ examined: [String: Examined]) -> Found {
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
    return Found(objects: found.values.sorted { $0.object < $1.object }, needed: needed)
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

  private func report(_ what: String, _ error: any Error) { trouble(RemoteSpill.trouble(at: place, what, error)) }
}
