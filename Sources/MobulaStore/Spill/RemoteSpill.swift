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

  struct State {
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
  static let largestBatch = 1000
  let place: any SpillPlace
  let instance: SpillInstance
  let patience: Patience
  let trouble: @Sendable (MobulaError) -> Void
  let state = Mutex(State())

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

  // MARK: Waiting

  /// Blocks until `body` has ended; `nil` at the deadline, or after `end`, with `body` cancelled.
  ///
  /// - Parameter isLast: whether it may run after `end`.
  func wait<Value: Sendable>(
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
  static func reason(_ error: any Error) -> String {
    let text = (error as? MobulaError)?.message ?? "\(error)"
    return text.hasSuffix(".") ? String(text.dropLast()) : text
  }
}

extension Duration {
  /// In words, to the second.
  fileprivate var rounded: String { "\(max(1, Int((self / .seconds(1)).rounded()))) s" }
}
