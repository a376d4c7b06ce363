/// The tickets that are out: each good once, and for a limited time.
///
/// Every placement comes with a ticket, and most are never used, since the
/// client has the segment already: so the book forgets the oldest, by age and
/// by number. What a ticket is for is a name, not a descriptor: a ticket that
/// is out keeps no memory alive.
struct TicketBook: Sendable {
  struct Grant: Hashable, Sendable {
    let segment: SegmentID
    let writable: Bool
  }

  static let life = Duration.seconds(30)

  /// The most tickets out at a time; one more, and the oldest goes.
  let limit: Int
  private var grants: [DescriptorTicket: (grant: Grant, expires: ContinuousClock.Instant)] = [:]
  /// In the order of issue, which is the order of expiry; what lies before `first` is gone.
  private var order: [DescriptorTicket] = []
  private var first = 0

  init(limit: Int = 65_536) { self.limit = limit }

  var count: Int { grants.count }

  mutating func issue(
    _ grant: Grant, now: ContinuousClock.Instant, using generator: inout some RandomNumberGenerator
  ) -> DescriptorTicket {
    forget(now: now)
    let ticket = DescriptorTicket(using: &generator)
    grants[ticket] = (grant, now + Self.life)
    order.append(ticket)
    return ticket
  }

  /// What `ticket` is for; `nil` when it is unknown, was used, or is too old.
  mutating func redeem(_ ticket: DescriptorTicket, now: ContinuousClock.Instant) -> Grant? {
    guard let (grant, expires) = grants.removeValue(forKey: ticket), now < expires else { return nil }
    return grant
  }

  private mutating func forget(now: ContinuousClock.Instant) {
    while first < order.count {
      let oldest = grants[order[first]]
      if let oldest, now < oldest.expires, order.count - first < limit { break }
      grants[order[first]] = nil
      first += 1
    }
    if first > 1024, first * 2 > order.count {
      order.removeFirst(first)
      first = 0
    }
  }
}
