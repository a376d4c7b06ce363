import MobulaCore
import MobulaStore
import MobulaWire
import Synchronization

/// Which store client each connected process is.
final class ClientTable: Sendable {
  private let clients = Mutex<[UInt64: StoreClientID]>([:])

  /// The process of a connection says that it is there.
  func attach(_ connection: UInt64, _ make: () -> StoreClientID) {
    clients.withLock { clients in
      if clients[connection] == nil { clients[connection] = make() }
    }
  }

  /// - Throws: `MobulaError` (`connectionClosed`) before the process attached and once it is gone: a late request must leave nothing behind.
  func client(of connection: UInt64) throws(MobulaError) -> StoreClientID {
    guard let client = clients.withLock({ $0[connection] }) else {
      throw MobulaError(
        .connectionClosed, "The process that asked is not attached: it has ended, or it must attach first.")
    }
    return client
  }

  /// Does something for a process, which can't be removed meanwhile.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) when it is gone.
  func whileAttached(_ connection: UInt64, _ body: () -> Void) throws(MobulaError) {
    let isAttached = clients.withLock { clients in
      guard clients[connection] != nil else { return false }
      body()
      return true
    }
    guard isAttached else { throw MobulaError(.connectionClosed, "The process that asked has ended.") }
  }

  func remove(_ connection: UInt64) -> StoreClientID? {
    clients.withLock { $0.removeValue(forKey: connection) }
  }
}

/// Holds the link to the head for those that are made before it.
final class LinkBox: Sendable {
  private let content = Mutex<HeadLink?>(nil)

  func fill(_ link: HeadLink) { content.withLock { $0 = link } }

  /// - Precondition: filled.
  var link: HeadLink {
    guard let link = content.withLock({ $0 }) else {
      preconditionFailure("the link to the head is used before it is made")
    }
    return link
  }
}
