import MobulaCore

/// Whether to read from S3 what other hosts have, too: where S3 was measured to be much faster than they are.
///
/// Instants are durations since any common origin.
struct SourceChoice: Sendable {
  /// Bytes to read at a time.
  static let part = 16 << 20
  /// How much faster S3 must be: bytes from hosts cost nothing.
  private static let advantage = 2.0
  /// For how long it must be so.
  private static let patience = Duration.seconds(2)
  /// When nothing is known of S3, it is tried if hosts would take so long.
  private static let unbearable = Duration.seconds(10)

  /// What S3 brings a second; `nil` before anything was read.
  private(set) var bytesPerSecond: Double?
  /// Since when hosts are slower.
  private var slowSince: Duration?

  /// A part was read.
  ///
  /// - Parameter others: parts that were read at the same time.
  mutating func read(bytes: Int, seconds: Double, beside others: Int) {
    guard bytes > 0 else { return }
    let rate = Double(bytes) * Double(others + 1) / max(seconds, 1e-6)
    bytesPerSecond = bytesPerSecond.map { 0.7 * $0 + 0.3 * rate } ?? rate
  }

  /// S3 is being read all the same: hosts can't be judged.
  mutating func isReading() -> String? {
    slowSince = nil
    return nil
  }

  /// - Parameters:
  ///   - hosts: bytes that other hosts bring a second.
  ///   - missing: bytes that are not here yet.
  /// - Returns: why to read a part from S3; `nil` for leaving it to the hosts.
  mutating func tick(hosts: Double, missing: Int, now: Duration) -> String? {
    guard missing > 0 else { return nil }
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
