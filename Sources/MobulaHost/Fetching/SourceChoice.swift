import MobulaCore

/// Whether to read from S3 what other hosts have, too: where S3 was measured to be much faster than they are.
///
/// Instants are durations since any common instant.
struct SourceChoice: Sendable {
  /// Bytes to read at a time.
  static let part = 16 << 20
  /// How much faster S3 must be: bytes from hosts cost nothing.
  private static let advantage = 2.0
  /// For how long it must be so.
  private static let patience = Duration.seconds(2)
  /// When nothing is known of S3, it is tried if hosts would take so long.
  private static let unbearable = Duration.seconds(10)

  /// Parts that are being read.
  private(set) var reading = 0
  /// Since when at least one is.
  private var busySince = Duration.zero
  private var busyTime = Duration.zero
  private var bytes = 0
  /// Since when hosts are slower.
  private var slowSince: Duration?

  /// What S3 has brought a second while anything was read from it; `nil` before.
  func bytesPerSecond(now: Duration) -> Double? {
    let time = busyTime + (reading > 0 ? now - busySince : .zero)
    return bytes > 0 && time > .zero ? Double(bytes) / (time / .seconds(1)) : nil
  }

  /// A part is being read.
  mutating func began(now: Duration) {
    if reading == 0 { busySince = now }
    reading += 1
  }

  /// It has come, or so much of it.
  mutating func ended(bytes: Int, now: Duration) {
    reading -= 1
    self.bytes += bytes
    if reading == 0 { busyTime += now - busySince }
  }

  /// - Parameters:
  ///   - hosts: bytes that other hosts bring a second.
  ///   - missing: bytes that are not here yet.
  /// - Returns: why to read a part from S3; `nil` for leaving it to the hosts.
  mutating func tick(hosts: Double, missing: Int, now: Duration) -> String? {
    guard missing > 0 else { return nil }
    // What S3 brings at the same time would be missing in what hosts bring.
    guard reading == 0 else {
      slowSince = nil
      return nil
    }
    let bytesPerSecond = bytesPerSecond(now: now)
    let isSlow =
      if let bytesPerSecond { hosts * Self.advantage < bytesPerSecond } else {
        hosts * (Self.unbearable / .seconds(1)) < Double(missing)
      }
    guard isSlow else {
      slowSince = nil
      return nil
    }
    guard let since = slowSince else {
      slowSince = now
      return nil
    }
    guard now - since >= Self.patience else { return nil }
    let rate = ByteCount(Int(hosts))
    guard let bytesPerSecond else { return "hosts brought \(rate) a second, and S3 was tried" }
    return "hosts brought \(rate) a second, S3 \(ByteCount(Int(bytesPerSecond)))"
  }
}
