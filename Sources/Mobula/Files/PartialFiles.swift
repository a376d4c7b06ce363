import Glibc
import Synchronization

/// Files of this process that are written and not yet whole, under names that nobody asked for.
///
/// A process that is asked to end removes them first; most writing needs none (`FileTarget`).
package enum PartialFiles {
  private static let paths = Mutex<Set<String>>([])

  static func add(_ path: String) { _ = paths.withLock { $0.insert(path) } }

  static func forget(_ path: String) { _ = paths.withLock { $0.remove(path) } }

  static func remove(_ path: String) {
    unlink(path)
    forget(path)
  }

  /// Removes all of them; what goes on writing finds out at its end.
  package static func removeAll() { paths.withLock { for path in $0 { unlink(path) } } }
}
