internal import MobulaCore

/// What goes over the descriptor socket. A request is 24 bytes: seven of magic,
/// the version, and the ticket's 16, most significant first. The answer is one
/// byte, with the descriptor attached (SCM_RIGHTS) when it is `granted`.
/// Further requests may follow on the connection; after any other answer it is closed.
enum DescriptorProtocol {
  enum Answer: UInt8 {
    case granted = 0
    /// The ticket is unknown, was used, is too old, or its segment is gone.
    case refused = 1
    /// Not a request of this version.
    case malformed = 2
  }

  static let prefix = Array("MOBULAD".utf8) + [1]
  static let requestSize = prefix.count + 16
  /// How long either side waits for the other.
  static let patience = Duration.seconds(10)

  static func request(_ ticket: DescriptorTicket) -> [UInt8] {
    var bytes = prefix
    for word in [ticket.high, ticket.low] {
      for shift in stride(from: 56, through: 0, by: -8) {
        bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(shift)))
      }
    }
    return bytes
  }

  /// The ticket in a request; `nil` for anything that is no request.
  static func ticket(in request: [UInt8]) -> DescriptorTicket? {
    guard request.count == requestSize, request.starts(with: prefix) else { return nil }
    func word(at start: Int) -> UInt64 { request[start..<start + 8].reduce(0) { $0 << 8 | UInt64($1) } }
    return DescriptorTicket(high: word(at: prefix.count), low: word(at: prefix.count + 8))
  }
}
