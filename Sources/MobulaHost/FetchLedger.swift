import MobulaCore
import MobulaTransfer
import Synchronization

/// From where the bytes of the objects came that this host received lately.
final class FetchLedger: Sendable {
  /// Objects that are remembered, the last ones.
  private static let capacity = 1024

  private struct State {
    var origins: [ObjectID: ObjectOrigins] = [:]
    var order: [ObjectID] = []
    /// Why bytes were read from S3 that other hosts had.
    var reasons: [ObjectID: String] = [:]
    /// What came with wrong bytes.
    var damages: [ObjectID: MobulaError] = [:]
    var damaged: [ObjectID] = []
    /// Why reading from S3 ended.
    var failures: [ObjectID: MobulaError] = [:]
    var failed: [ObjectID] = []
  }

  private let state = Mutex(State())

  /// Bytes were read from S3 although other hosts have them.
  func explain(_ object: ObjectID, _ reason: String) { state.withLock { $0.reasons[object] = reason } }

  /// It did not come.
  func forget(_ object: ObjectID) { state.withLock { $0.reasons[object] = nil } }

  /// An object's bytes are wrong, whoever asks for it.
  func condemn(_ object: ObjectID, _ error: MobulaError) {
    state.withLock { state in
      if state.damages.updateValue(error, forKey: object) == nil { state.damaged.append(object) }
      if state.damaged.count > Self.capacity { state.damages[state.damaged.removeFirst()] = nil }
    }
  }

  func damage(of object: ObjectID) -> MobulaError? { state.withLock { $0.damages[object] } }

  /// An object is read from S3, again or for the first time: what was wrong before counts no more.
  func begin(_ object: ObjectID) {
    state.withLock { state in
      if state.damages.removeValue(forKey: object) != nil { state.damaged.removeAll { $0 == object } }
      if state.failures.removeValue(forKey: object) != nil { state.failed.removeAll { $0 == object } }
    }
  }

  /// Reading an object from S3 has failed.
  func failed(_ object: ObjectID, _ error: MobulaError) {
    state.withLock { state in
      if state.failures.updateValue(error, forKey: object) == nil { state.failed.append(object) }
      if state.failed.count > Self.capacity { state.failures[state.failed.removeFirst()] = nil }
    }
  }

  /// Why reading the object failed, for who asks when nobody has it any more.
  func failure(of object: ObjectID) -> MobulaError? { state.withLock { $0.failures[object] } }

  /// - Parameter verification: whether its bytes were compared with S3's checksum.
  func record(_ object: ObjectID, _ report: TransferReport, _ verification: ReplicaCheck.Outcome?) {
    state.withLock { state in
      var origins = ObjectOrigins(
        fromS3: report.filled, fromHosts: report.sources, reason: state.reasons.removeValue(forKey: object))
      switch verification {
      case .verified(let algorithm): origins.checksum = algorithm
      case .notVerified(let why): origins.unverified = why
      case nil: break
      }
      if state.origins.updateValue(origins, forKey: object) == nil { state.order.append(object) }
      if state.order.count > Self.capacity { state.origins[state.order.removeFirst()] = nil }
    }
  }

  func origins(of object: ObjectID) -> ObjectOrigins? { state.withLock { $0.origins[object] } }
}
