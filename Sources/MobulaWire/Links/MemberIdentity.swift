public import MobulaCore
import Synchronization

/// Which process of a host or of a pod this is, to the heads that it registers at.
///
/// A process is known by a nonce that it draws; heads number the processes of a member, and their own starts. Clocks
/// play no part.
public final class MemberIdentity: Sendable {
  public struct Values: Sendable {
    public var nonce = ProcessNonce.random()
    /// The number that a head gave this process; 0 before.
    public var incarnation: UInt64 = 0
    /// The highest epoch of a head that it registered at.
    public var epoch: UInt64 = 0
    /// Of a pod, the session that it was last told.
    public var session: UInt64?
    /// Whether it has dropped all that it had, since the cluster had given it up.
    public var beganAnew = false
  }

  private let state = Mutex(Values())

  public init() {}

  public var values: Values { state.withLock { $0 } }

  /// Refuses a head that a later one has taken the place of: it may come back after it was cut off.
  ///
  /// - Throws: `MobulaError` (`unavailable`), since the later one may be at its address again.
  public func check(_ head: Hello) throws(MobulaError) {
    let epoch = values.epoch
    guard head.role != .head || head.epoch >= epoch else {
      throw MobulaError(
        .unavailable,
        "The head of epoch \(head.epoch) was followed by that of epoch \(epoch), and is not to be registered at: stop it."
      )
    }
  }

  package func registered(_ reply: RegistrationReply) {
    state.withLock { state in
      state.epoch = max(state.epoch, reply.epoch)
      if let incarnation = reply.incarnation { state.incarnation = incarnation }
      if let session = reply.session { state.session = session }
      state.beganAnew = false
    }
  }

  /// It goes on as another process would.
  public func beginAnew() {
    state.withLock { state in
      let epoch = state.epoch
      state = Values()
      state.epoch = epoch
      state.beganAnew = true
    }
  }
}
