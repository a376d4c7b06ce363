public import MobulaCore

/// What TCP carries between two hosts: over one connection, or over the best number of them where nothing is shaped.
public struct LineRate: Hashable, Sendable, CustomStringConvertible {
  /// Payload.
  public let bytesPerSecond: Double
  /// The rate that the interfaces were shaped to; `nil` where nothing is shaped.
  public let nic: LinkRate?

  public init(bytesPerSecond: Double, nic: LinkRate?) {
    self.bytesPerSecond = bytesPerSecond
    self.nic = nic
  }

  /// Payload in a full Ethernet frame of TCP over IPv4 with time stamps: 1448 of 1514 bytes.
  public static let payloadShare = 0.956
  /// How far a probe may be from what the interface allows.
  public static let tolerance = 0.02

  /// What the shaped interface allows, in bytes of payload per second.
  public var expected: Double? { nic.map { Self.payloadShare * Double($0.bitsPerSecond) / 8 } }

  /// Whether the probe found the emulation to be what it claims; true where nothing is shaped.
  public var isValid: Bool {
    guard let expected else { return true }
    return abs(bytesPerSecond - expected) <= Self.tolerance * expected
  }

  /// One sentence: the rate found, and when that makes the run invalid, the rate expected.
  public var description: String {
    let found = "\(megabytes(bytesPerSecond)) MB/s"
    guard let expected, let nic else { return "The line rate is \(found), unshaped." }
    let expectation = "\(megabytes(expected)) MB/s ± 2 % (0.956 × \(nic))"
    return isValid
      ? "The line rate is \(found), expected \(expectation)."
      : "The line rate is \(found), expected \(expectation): this run is invalid; run it again on an idle machine."
  }

  private func megabytes(_ bytes: Double) -> String { fixed(bytes / 1e6, digits: 1) }
}
