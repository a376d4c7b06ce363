/// The right to attach to a store, once, within 30 seconds: 128 random bits.
///
/// Whoever presents it at the store's socket gets the store's memory, so it
/// travels over authenticated connections only, and no log shows it.
public struct DescriptorTicket: Codable, Sendable, Hashable, CustomStringConvertible {
  let high: UInt64
  let low: UInt64

  init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  init(using generator: inout some RandomNumberGenerator) {
    self.init(high: generator.next(), low: generator.next())
  }

  /// Never the secret.
  public var description: String { "store ticket" }
}

/// What shows that a process is the client that it says it is: 128 random bits, which lie in its page.
public struct ClientSecret: Codable, Sendable, Hashable, CustomStringConvertible {
  let high: UInt64
  let low: UInt64

  init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  init(using generator: inout some RandomNumberGenerator) {
    self.init(high: generator.next(), low: generator.next())
  }

  /// Never the secret.
  public var description: String { "client's secret" }
}
