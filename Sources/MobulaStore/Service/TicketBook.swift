import MobulaCore

/// The tickets that are out: each good once, and for a limited time. The oldest goes when there are too many.
struct TicketBook: Sendable {
  static let life = Duration.seconds(30)

  /// The most tickets out at a time; one more, and the oldest goes.
  let limit: Int
  private var expiries: [DescriptorTicket: ContinuousClock.Instant] = [:]
  /// In the order of issue, which is the order of expiry; what lies before `first` is gone.
  private var order: [DescriptorTicket] = []
  private var first = 0

  init(limit: Int = 65_536) { self.limit = limit }

  var count: Int { expiries.count }

  mutating func issue(
    now: ContinuousClock.Instant, using generator: inout some RandomNumberGenerator
  ) -> DescriptorTicket {
    forget(now: now)
    let ticket = DescriptorTicket(using: &generator)
    expiries[ticket] = now + Self.life
    order.append(ticket)
    return ticket
  }

  /// Whether `ticket` is good; false when it is unknown, was used, or is too old.
  mutating func redeem(_ ticket: DescriptorTicket, now: ContinuousClock.Instant) -> Bool {
    guard let expires = expiries.removeValue(forKey: ticket) else { return false }
    return now < expires
  }

  private mutating func forget(now: ContinuousClock.Instant) {
    while first < order.count {
      if let expires = expiries[order[first]], now < expires, order.count - first < limit { break }
      expiries[order[first]] = nil
      first += 1
    }
    if first > 1024, first * 2 > order.count {
      order.removeFirst(first)
      first = 0
    }
  }
}
