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
  }

  private let state = Mutex(State())

  /// Bytes were read from S3 although other hosts have them.
  func explain(_ object: ObjectID, _ reason: String) { state.withLock { $0.reasons[object] = reason } }

  /// It did not come.
  func forget(_ object: ObjectID) { state.withLock { $0.reasons[object] = nil } }

  func record(_ object: ObjectID, _ report: TransferReport) {
    state.withLock { state in
      let origins = ObjectOrigins(
        fromS3: report.filled, fromHosts: report.sources, reason: state.reasons.removeValue(forKey: object))
      if state.origins.updateValue(origins, forKey: object) == nil { state.order.append(object) }
      if state.order.count > Self.capacity { state.origins[state.order.removeFirst()] = nil }
    }
  }

  func origins(of object: ObjectID) -> ObjectOrigins? { state.withLock { $0.origins[object] } }
}
