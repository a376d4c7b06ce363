import MobulaCore
import MobulaTransfer
import MobulaWire
import Synchronization

/// From where the bytes of the objects came that this host received lately.
final class FetchLedger: Sendable {
  private struct State {
    var sources = Recent<ObjectSources>()
    /// Why bytes were read from S3 that other hosts had.
    var reasons: [ObjectID: String] = [:]
    /// What came with wrong bytes.
    var damages = Recent<MobulaError>()
    /// Why reading from S3 ended.
    var failures = Recent<(error: MobulaError, at: ContinuousClock.Instant)>()
    /// What is waited for in the middle of an object.
    var waits: [ObjectID: String] = [:]
    /// Bytes that came before anybody waited for them.
    var unreported = Recent<Int>()
  }

  private let state = Mutex(State())

  /// Bytes were read from S3 although other hosts have them.
  func explain(_ object: ObjectID, _ reason: String) { state.withLock { $0.reasons[object] = reason } }

  /// It did not come.
  func forget(_ object: ObjectID) {
    state.withLock { state in
      state.reasons[object] = nil
      state.waits[object] = nil
    }
  }

  /// S3 does not answer in the middle of an object; `nil`: it does again.
  func waits(_ object: ObjectID, for problem: String?) {
    state.withLock { if $0.waits[object] != problem { $0.waits[object] = problem } }
  }

  func wait(for object: ObjectID) -> String? { state.withLock { $0.waits[object] } }

  /// An object's bytes are wrong, whoever asks for it.
  func condemn(_ object: ObjectID, _ error: MobulaError) { state.withLock { $0.damages[object] = error } }

  func damage(of object: ObjectID) -> MobulaError? { state.withLock { $0.damages[object] } }

  /// An object is read from S3, again or for the first time: what was wrong before counts no more.
  func begin(_ object: ObjectID) {
    state.withLock { state in
      state.damages[object] = nil
      state.failures[object] = nil
      state.unreported[object] = nil
    }
  }

  /// So many bytes of an object came, and nobody has been told of them.
  func setAside(_ object: ObjectID, _ bytes: Int) { state.withLock { $0.unreported[object] = bytes } }

  /// What was set aside, for the first who asks; else 0.
  func takeUnreported(_ object: ObjectID) -> Int {
    state.withLock { state in
      guard let bytes = state.unreported[object] else { return 0 }
      state.unreported[object] = nil
      return bytes
    }
  }

  /// Reading an object from S3 has failed.
  func failed(_ object: ObjectID, _ error: MobulaError) { state.withLock { $0.failures[object] = (error, .now) } }

  /// Why reading the object failed, for who asks when nobody has it any more.
  ///
  /// - Parameter start: what failed before that does not count.
  func failure(of object: ObjectID, since start: ContinuousClock.Instant? = nil) -> MobulaError? {
    guard let failure = state.withLock({ $0.failures[object] }), start ?? failure.at <= failure.at else { return nil }
    return failure.error
  }

  /// - Parameters:
  ///   - verification: whether its bytes were compared with S3's checksum.
  ///   - before: bytes that an earlier fetch left, which failed.
  func record(
    _ object: ObjectID, _ report: TransferReport, _ verification: ReplicaCheck.Outcome?, before: Int = 0
  ) {
    record(object, fromS3: before + report.filled, fromHosts: report.sources, verification)
  }

  private func record(
    _ object: ObjectID, fromS3: Int, fromHosts: [HostID: Int], _ verification: ReplicaCheck.Outcome?
  ) {
    state.withLock { state in
      var sources = ObjectSources(
        fromS3: fromS3, fromHosts: fromHosts, reason: state.reasons.removeValue(forKey: object))
      switch verification {
      case .verified(let algorithm): sources.checksum = algorithm
      case .notVerified(let why): sources.unverified = why
      case nil: break
      }
      state.sources[object] = sources
      state.waits[object] = nil
    }
  }

  /// An object came from S3 at once.
  func record(_ object: ObjectID, fromS3 bytes: Int, _ verification: ReplicaCheck.Outcome) {
    record(object, fromS3: bytes, fromHosts: [:], verification)
  }

  /// An object came from another host at once.
  func record(_ object: ObjectID, from host: HostID, _ bytes: Int) {
    record(object, fromS3: 0, fromHosts: [host: bytes], nil)
  }

  func sources(of object: ObjectID) -> ObjectSources? { state.withLock { $0.sources[object] } }
}

/// What is remembered of objects: of so many, those of which something was said first are forgotten first.
private struct Recent<Value> {
  private static var capacity: Int { 1024 }

  private var values: [ObjectID: Value] = [:]
  private var order: [ObjectID] = []

  subscript(object: ObjectID) -> Value? {
    get { values[object] }
    set {
      let before = values[object]
      values[object] = newValue
      if newValue == nil {
        if before != nil { order.removeAll { $0 == object } }
        return
      }
      if before == nil { order.append(object) }
      if order.count > Self.capacity { values[order.removeFirst()] = nil }
    }
  }
}
