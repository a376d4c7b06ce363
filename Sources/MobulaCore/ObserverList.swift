internal import Synchronization

/// Who wants to hear of a change.
package final class ObserverList: Sendable {
  private struct State {
    var observers: [UInt64: @Sendable () -> Void] = [:]
    var last: UInt64 = 0
  }

  private final class Token: Sendable {
    let list: ObserverList
    let number: UInt64

    init(_ list: ObserverList, _ number: UInt64) {
      self.list = list
      self.number = number
    }

    deinit { list.state.withLock { _ = $0.observers.removeValue(forKey: number) } }
  }

  private let state = Mutex(State())

  /// A list of nobody.
  package init() {}

  /// - Returns: to be kept for as long as `body` shall be called.
  package func add(_ body: @escaping @Sendable () -> Void) -> any AnyObject & Sendable {
    Token(
      self,
      state.withLock { state in
        state.last += 1
        state.observers[state.last] = body
        return state.last
      })
  }

  /// Calls every observer, on this thread.
  package func notify() {
    let observers = state.withLock { Array($0.observers.values) }
    for observer in observers { observer() }
  }
}
