/// Which accepted connections may wait for their peer to prove that it has the token.
///
/// They have a number of their own, so that however many say nothing, those that have proved themselves are not
/// concerned; of too many from one address the oldest has to go, and of too many in all the oldest from the address
/// that has most. So who is quick gets through, and who comes from another address even more so.
package struct HandshakeQuota<Connection: Hashable & Sendable>: Sendable {
  package let total: Int
  package let perAddress: Int
  /// Of each address, the oldest first.
  private var waiting: [String: [Connection]] = [:]
  private var addresses: [Connection: String] = [:]

  package init(total: Int, perAddress: Int) {
    self.total = total
    self.perAddress = perAddress
  }

  /// How many wait.
  package var count: Int { addresses.count }

  /// A connection came.
  ///
  /// - Returns: the connection that has to go for it, and is forgotten here.
  package mutating func accepted(_ connection: Connection, from address: String) -> Connection? {
    waiting[address, default: []].append(connection)
    addresses[connection] = address
    if waiting[address]!.count > perAddress { return evict(from: address) }
    guard addresses.count > total else { return nil }
    let most = waiting.max { ($0.value.count, $1.key) < ($1.value.count, $0.key) }!.key
    return evict(from: most)
  }

  /// A connection's peer has proved itself, or the connection is gone. One that isn't known is passed over.
  package mutating func left(_ connection: Connection) {
    guard let address = addresses.removeValue(forKey: connection) else { return }
    waiting[address]?.removeAll { $0 == connection }
    if waiting[address]?.isEmpty == true { waiting[address] = nil }
  }

  private mutating func evict(from address: String) -> Connection {
    let oldest = waiting[address]!.first!
    left(oldest)
    return oldest
  }
}
