internal import MobulaCore

/// What is kept in memory of an object whose bytes are in a `SpillPlace`.
struct RemoteObject: Hashable, Sendable {
  let item: SpillItem
  /// As it is written before the object's bytes, and read again only after a restart.
  let header: SpillHeader

  var object: ObjectID { header.object }
}

/// A store's half of a `SpillPlace`: waits for it, so long and no longer (`PlaceCalls`), checks what comes back, and
/// removes what is not needed any more as soon as the place can be reached (`RemoteRemover`).
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

  private let place: any SpillPlace
  private let instance: SpillInstance
  private let patience: Patience
  private let trouble: @Sendable (MobulaError) -> Void
  private let calls = PlaceCalls()
  private let remover: RemoteRemover

  /// - Parameter trouble: told what goes wrong while nobody waits.
  init(
    _ place: any SpillPlace, instance: SpillInstance, patience: Patience = Patience(),
    trouble: @escaping @Sendable (MobulaError) -> Void = { _ in }
  ) {
    self.place = place
    self.instance = instance
    self.patience = patience
    self.trouble = trouble
    remover = RemoteRemover(place, instance: instance, patience: patience, trouble: trouble)
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
    guard remover.need(name) else {
      throw MobulaError(.unavailable, "Object \(header.object) can't be spilled, since its store has ended.")
    }
    let (head, size, lent, start) = (header.encoded(), header.fileSize, LentMemory(bytes), ContinuousClock.now)
    defer { lent.takeBack() }
    let result = calls.wait(until: deadline) { [place] in
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
      remover.remove(name, isUnfinished: true)
      throw refused(size, Self.reason(error))
    case nil:
      remover.remove(name, isUnfinished: true)
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
    let result = calls.wait(until: deadline) { [place, patience] in
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

  // MARK: Beginning and end

  /// The objects that an earlier run of this instance left, for a store that has started again. What is damaged is
  /// told as trouble, and lost. What could not be looked at in time is told too; it stays where it is for the next
  /// run.
  func recover() -> [RemoteObject] {
    let found = RemoteRecovery(place: place, instance: instance, patience: patience, calls: calls, trouble: trouble)
      .run()
    remover.keep(found.needed)
    return found.objects
  }

  /// Removes an item in the background, as soon as the place can be reached.
  func remove(_ name: String) { remover.remove(name) }

  /// Removes in the background what other runs of this host have left; until that has worked, or the end.
  func clean() { remover.clean() }

  /// The end begins: nothing is written any more, and whoever waits gets an error.
  func end() {
    calls.end()
    remover.end()
  }

  /// The orderly end of a store: removes everything that is there, in the time that there is.
  ///
  /// - Parameter limit: when it must be over, even if that is sooner.
  func removeAll(until limit: ContinuousClock.Instant? = nil) {
    end()
    remover.needNothing()
    let deadline = ContinuousClock.now + patience.removeAll
    let result = calls.wait(until: min(deadline, limit ?? deadline), isLast: true) { [remover] in
      try await remover.removeUnneeded()
    }
    let what = "what this host spilled stays until it starts again"
    switch result {
    case .success: return
    case .failure(let error): trouble(Self.trouble(at: place, what, error))
    case nil:
      trouble(Self.trouble(at: place, what, MobulaError(.deadlineExceeded, "it is not fast enough")))
    }
  }

  /// What is told of something that went wrong at a place.
  static func trouble(at place: any SpillPlace, _ what: String, _ error: any Error) -> MobulaError {
    MobulaError(.unavailable, "At \(place.title) \(what): \(reason(error)).")
  }

  /// An error's sentence, as a part of another.
  static func reason(_ error: any Error) -> String {
    let text = (error as? MobulaError)?.message ?? "\(error)"
    return text.hasSuffix(".") ? String(text.dropLast()) : text
  }
}

extension Duration {
  /// In words, to the second.
  fileprivate var rounded: String { "\(max(1, Int((self / .seconds(1)).rounded()))) s" }
}
