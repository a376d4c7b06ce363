import MobulaCore
import Synchronization

/// This process's references, one an object.
final class ReferenceTable: Sendable {
  private struct State {
    var references: [ObjectID: WeakReference] = [:]
    var next: UInt64 = 1
    /// Grows with the table; entries of references that are gone are swept out at times.
    var sweepAt = 64
  }

  private struct WeakReference {
    weak var reference: AnyReference?
  }

  private let state = Mutex(State())

  /// The reference to an object, made by `make` (given a number of its own) if there is none.
  func reference(to object: ObjectID, make: (UInt64) -> AnyReference) -> AnyReference {
    state.withLock { state in
      if let reference = state.references[object]?.reference { return reference }
      if state.references.count >= state.sweepAt {
        state.references = state.references.filter { $0.value.reference != nil }
        state.sweepAt = max(64, state.references.count * 2)
      }
      let reference = make(state.next)
      state.next += 1
      state.references[object] = WeakReference(reference: reference)
      return reference
    }
  }
}
