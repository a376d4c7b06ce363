import MobulaCore
import MobulaStore
import MobulaWire
import Synchronization

/// Which store client each connected process is.
final class ClientTable: Sendable {
  private let clients = Mutex<[UInt64: StoreClientID]>([:])

  func add(_ client: StoreClientID, of connection: UInt64) {
    clients.withLock { $0[connection] = client }
  }

  /// - Throws: `MobulaError` (`connectionClosed`) once the process is gone: a late request must leave nothing behind.
  func client(of connection: UInt64) throws(MobulaError) -> StoreClientID {
    guard let client = clients.withLock({ $0[connection] }) else {
      throw MobulaError(.connectionClosed, "The process that asked is gone.")
    }
    return client
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
