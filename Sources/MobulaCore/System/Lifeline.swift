internal import Glibc

/// A socket pair of which this process keeps one end: children that read from the
/// other find its end when this process is gone, however it went.
package final class Lifeline: Sendable {
  private let ours: OwnedDescriptor
  private let theirs: OwnedDescriptor

  /// - Throws: `MobulaError` (`inputOutput`) when the process has no descriptors left.
  package init() throws(MobulaError) {
    var ends: [CInt] = [-1, -1]
    // Close-on-exec: a child has only the end that it was given.
    try systemCall("A socket pair can't be made") {
      socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends)
    }
    ours = OwnedDescriptor(owning: ends[0])
    theirs = OwnedDescriptor(owning: ends[1])
  }

  /// What children get as their standard input; good as long as this object lives.
  package var childsEnd: CInt { theirs.rawValue }
}
