internal import MobulaCore
internal import Synchronization

/// The objects of which a service has answered all to a range.
final class S3WholeStreams: Sendable {
  private struct Version: Hashable {
    var bucket: String
    var key: Name
    var etag: String
  }

  /// Remembered at a time: of one that is forgotten a range is asked for again, and it is known anew.
  private static let most = 64

  private let streams = Mutex<[Version: S3WholeStream]>([:])

  func stream(of info: S3ObjectInfo, bucket: String, key: String) -> S3WholeStream? {
    streams.withLock { $0.isEmpty ? nil : $0[Version(bucket: bucket, key: Name(key), etag: info.etag)] }
  }

  func begin(of info: S3ObjectInfo, bucket: String, key: String, _ transport: S3Transport) -> S3WholeStream {
    let version = Version(bucket: bucket, key: Name(key), etag: info.etag)
    return streams.withLock { streams in
      if let stream = streams[version] { return stream }
      if streams.count >= Self.most, let first = streams.first(where: { !$0.value.isBusy })?.key {
        streams[first] = nil
      }
      let stream = S3WholeStream(
        transport: transport, bucket: bucket, key: key, etag: info.etag, versionID: info.versionID)
      streams[version] = stream
      return stream
    }
  }
}

/// All of one version of an object as it comes by one GET, of which readers take ranges: for services that answer all of
/// an object to a range of it, from which every range by itself would come with all the others.
///
/// Ranges are read one after the other, of those that are asked for the lowest first. What lies between them is thrown
/// away; for one that has gone by already the object is asked for anew.
final class S3WholeStream: Sendable {
  fileprivate struct Waiter {
    var id: Int
    var lowerBound: Int
    var continuation: CheckedContinuation<Void, Never>
  }

  fileprivate struct State {
    /// Of the GET; what comes of one before is thrown away.
    var generation = 0
    var pump: Task<Void, Never>?
    /// What has come and nobody has taken, and where in the object it begins.
    var pieces: [[UInt8]] = []
    var position = 0
    /// Of the first piece, what has been taken.
    var taken = 0
    var isOver = false
    var failure: (any Error)?
    /// The GET, while there is enough.
    var full: CheckedContinuation<Void, Never>?
    /// The reader whose turn it is, while there is nothing.
    var empty: CheckedContinuation<Void, Never>?
    var isBusy = false
    var turns: [Waiter] = []
    var lastTurn = 0
    /// Readers so far.
    var readers = 0

    var buffered: Int { pieces.reduce(-taken) { $0 + $1.count } }
  }

  fileprivate enum Step {
    case bytes([UInt8])
    case wait
    case end((any Error)?)
  }

  /// What comes ahead of the readers, at most about so much.
  private static let enough = 1_048_576
  /// How long an answer is kept open that nobody reads.
  private static let patience = Duration.seconds(5)

  private let transport: S3Transport
  private let bucket: String
  private let key: String
  private let etag: String
  private let versionID: String?
  private let state = Mutex(State())

  init(transport: S3Transport, bucket: String, key: String, etag: String, versionID: String?) {
    self.transport = transport
    self.bucket = bucket
    self.key = key
    self.etag = etag
    self.versionID = versionID
  }

  var isBusy: Bool { state.withLock(\.isBusy) }

  /// Reads a range, when its turn comes.
  ///
  /// - Parameters:
  ///   - pace: waits until so many more bytes may be received.
  ///   - consume: takes the bytes in their order.
  /// - Throws: as the GET; what `consume` and `pace` threw.
  func read(
    _ range: Range<Int>, pace: S3Pace?, _ consume: (UnsafeRawBufferPointer) throws -> Void
  ) async throws {
    await takeTurn(range.lowerBound)
    defer { endTurn() }
    try Task.checkCancellation()
    begin(at: range.lowerBound)
    var position = range.lowerBound
    while position < range.upperBound {
      switch state.withLock({ $0.next(at: position, upTo: range.upperBound) }) {
      case .bytes(let bytes):
        state.withLock { $0.wakePump(below: Self.enough) }?.resume()
        try await pace?(bytes.count)
        try bytes.withUnsafeBytes { try consume($0) }
        position += bytes.count
      case .wait: await waitForBytes()
      case .end(let failure):
        throw failure
          ?? S3Error(
            code: S3Error.interrupted, message: "\(range.upperBound - position) of \(range.count) bytes did not come",
            endpoint: transport.configuration.baseEndpoint, bucket: bucket, key: key)
      }
      try Task.checkCancellation()
    }
  }

  // MARK: Turns

  private func takeTurn(_ lowerBound: Int) async {
    let id = state.withLock { state -> Int? in
      state.readers += 1
      guard state.isBusy else {
        state.isBusy = true
        return nil
      }
      state.lastTurn += 1
      return state.lastTurn
    }
    guard let id else { return }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let isFree = state.withLock { state -> Bool in
          guard state.isBusy else {
            state.isBusy = true
            return true
          }
          state.turns.append(Waiter(id: id, lowerBound: lowerBound, continuation: continuation))
          return false
        }
        if isFree { continuation.resume() }
      }
    } onCancel: {
      // It takes its turn at once, and gives it back: whoever has it now is not disturbed by that.
      self.hurry(id)
    }
  }

  /// Whoever gives up waits as the first.
  private func hurry(_ id: Int) {
    state.withLock { state in
      if let place = state.turns.firstIndex(where: { $0.id == id }) { state.turns[place].lowerBound = -1 }
    }
  }

  private func endTurn() {
    let (next, readers) = state.withLock { state -> (CheckedContinuation<Void, Never>?, Int) in
      guard let place = state.turns.indices.min(by: { state.turns[$0].lowerBound < state.turns[$1].lowerBound }) else {
        state.isBusy = false
        return (nil, state.readers)
      }
      return (state.turns.remove(at: place).continuation, state.readers)
    }
    if let next { return next.resume() }
    Task {
      try? await Task.sleep(for: Self.patience)
      // At once: whoever came between would wait for what nobody reads any more.
      state.withLock { if !$0.isBusy, $0.readers == readers { $0.clear() } }
    }
  }

  // MARK: The GET

  /// Sees to it that what comes begins at or before a position.
  private func begin(at position: Int) {
    let generation = state.withLock { state -> Int? in
      let isUsable = state.pump != nil && state.failure == nil && state.position + state.taken <= position
      if isUsable, !state.isOver || state.position + state.taken + state.buffered > position { return nil }
      state.clear()
      return state.generation
    }
    guard let generation else { return }
    let pump = Task {
      do {
        let answer = try await self.transport.send(
          .get(bucket: self.bucket, key: self.key, range: nil, ifMatch: self.etag), version: self.versionID)
        guard answer.etag == nil || answer.etag == self.etag else {
          throw S3Error(
            code: "PreconditionFailed", httpStatus: 412, endpoint: self.transport.configuration.baseEndpoint,
            bucket: self.bucket, key: self.key)
        }
        try await answer.readPieces(pace: { _ in await self.waitForRoom(generation) }) { piece in
          self.came(Array(piece), generation)
        }
        self.ended(nil, generation)
      } catch {
        self.ended(error, generation)
      }
    }
    let isCurrent = state.withLock { state in
      if state.generation == generation { state.pump = pump }
      return state.generation == generation
    }
    if !isCurrent { pump.cancel() }
  }

  private func came(_ piece: [UInt8], _ generation: Int) {
    state.withLock { state -> CheckedContinuation<Void, Never>? in
      guard state.generation == generation else { return nil }
      state.pieces.append(piece)
      return state.empty.take()
    }?.resume()
  }

  private func ended(_ failure: (any Error)?, _ generation: Int) {
    state.withLock { state -> CheckedContinuation<Void, Never>? in
      guard state.generation == generation else { return nil }
      (state.isOver, state.failure) = (true, failure)
      return state.empty.take()
    }?.resume()
  }

  private func waitForRoom(_ generation: Int) async {
    await withCheckedContinuation { continuation in
      let goesOn = state.withLock { state -> Bool in
        guard state.generation == generation, state.buffered >= Self.enough else { return true }
        state.full = continuation
        return false
      }
      if goesOn { continuation.resume() }
    }
  }

  private func waitForBytes() async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let goesOn = state.withLock { state -> Bool in
          guard state.pieces.isEmpty, !state.isOver, !Task.isCancelled else { return true }
          state.empty = continuation
          return false
        }
        if goesOn { continuation.resume() }
      }
    } onCancel: {
      self.state.withLock { $0.empty.take() }?.resume()
    }
  }
}

extension S3WholeStream.State {
  /// Forgets the GET there was.
  fileprivate mutating func clear() {
    generation += 1
    pump?.cancel()
    full.take()?.resume()
    (pump, pieces, position, taken, isOver, failure) = (nil, [], 0, 0, false, nil)
  }

  /// The GET, if it may go on.
  fileprivate mutating func wakePump(below enough: Int) -> CheckedContinuation<Void, Never>? {
    buffered < enough ? full.take() : nil
  }

  /// What lies at a position, and nothing of what lies before it any more.
  fileprivate mutating func next(at position: Int, upTo end: Int) -> S3WholeStream.Step {
    while let first = pieces.first {
      let start = self.position + taken
      let skipped = min(first.count - taken, position - start)
      taken += skipped
      if taken < first.count {
        let bytes = Array(first[taken..<min(first.count, taken + end - position)])
        taken += bytes.count
        dropEmpty()
        return .bytes(bytes)
      }
      dropEmpty()
    }
    full.take()?.resume()
    return isOver ? .end(failure) : .wait
  }

  private mutating func dropEmpty() {
    guard let first = pieces.first, taken == first.count else { return }
    position += first.count
    taken = 0
    pieces.removeFirst()
  }
}
