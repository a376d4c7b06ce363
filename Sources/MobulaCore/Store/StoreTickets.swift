/// 128 random bits that nobody but their owner knows, and no log shows.
package struct StoreSecret<Purpose>: Codable, Sendable, Hashable, CustomStringConvertible {
  package let high: UInt64
  package let low: UInt64

  package init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  package init(using generator: inout some RandomNumberGenerator) {
    self.init(high: generator.next(), low: generator.next())
  }

  /// Never the secret.
  package var description: String { "\(Purpose.self)" }
}

/// What a ticket is good for.
package enum TicketPurpose {}
/// To attach to a store.
package enum ClientPurpose {}

/// The right to attach to a store, once, within 30 seconds.
///
/// Whoever presents it at the store's socket gets the store's memory, so it
/// travels over authenticated connections only.
package typealias DescriptorTicket = StoreSecret<TicketPurpose>

/// What shows that a process is the client that it says it is; lies in its page.
package typealias ClientSecret = StoreSecret<ClientPurpose>
