internal import Glibc
internal import MobulaCore

/// What goes over the store's socket: packets of one request and one answer each, with descriptors attached.
///
/// A request is a magic number with the version, the operation, and words; an answer is a status and words,
/// or the code and the message of an error. Numbers are in the machine's order: it never leaves the host.
enum StoreProtocol {
  static let magic: UInt64 = 0x4D4F_4255_5354_0001  // MOBUST, version 1
  static let largestPacket = 4096
  /// How long either side waits for the other's next byte, where nothing says otherwise.
  static let patience = Duration.seconds(10)

  enum Operation: UInt64 {
    /// Ticket (2); name. With the process's descriptor, if it has one. Answer: client, segment, its size, largest extent; index, page, segment, doorbell.
    case attach = 1
    /// Client, secret (2). Answer: incarnation.
    case resume = 2
    /// Segment. Answer: its size; the descriptor, read-only.
    case segment = 3
    /// Bytes of an extent, milliseconds. Answer: offset, bytes; or 0, 0 when the client's own extents have room again.
    case grow = 4
    /// Object (2), bytes with the trailer, milliseconds. Answer: offset.
    case create = 5
    /// Object (2), offset.
    case abort = 6
    /// Object (2): takes the client's announcements in. Answer: nothing, or the error of this object's.
    case confirm = 7
    /// Object (2). Answer: entry, segment, offset, bytes.
    case pin = 8
    /// The client uses nothing of the store any more, though its process lives on.
    case detach = 9
    /// Object (2). Answer: nothing; the descriptor of its spill file, read-only.
    case spilled = 10
  }

  /// Words and descriptors.
  struct Answer: Sendable {
    var words: [UInt64] = []
    var descriptors: [SharedDescriptor] = []
  }

  static func encode(_ words: [UInt64], text: String = "") -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(8 + words.count * 8 + text.utf8.count)
    for word in [UInt64(words.count)] + words { withUnsafeBytes(of: word) { bytes.append(contentsOf: $0) } }
    bytes.append(contentsOf: text.utf8.prefix(2048))
    return bytes
  }

  /// Words and text; `nil` for a packet that is shorter than it says.
  static func decode(_ bytes: [UInt8]) -> (words: [UInt64], text: String)? {
    bytes.withUnsafeBytes { bytes in
      guard bytes.count >= 8, bytes.count <= largestPacket else { return nil }
      let count = bytes.loadUnaligned(as: UInt64.self)
      guard count <= 64, bytes.count >= 8 + Int(count) * 8 else { return nil }
      let words = (0..<Int(count)).map { bytes.loadUnaligned(fromByteOffset: 8 + $0 * 8, as: UInt64.self) }
      return (words, String(decoding: bytes[(8 + Int(count) * 8)...], as: UTF8.self))
    }
  }

  static func encode(_ error: MobulaError) -> [UInt8] { encode([1], text: "\(error.code)\n\(error.message)") }

  static func error(_ text: String) -> MobulaError {
    let parts = text.split(separator: "\n", maxSplits: 1)
    guard parts.count == 2 else { return MobulaError(.protocolViolation, "The store answered without a reason.") }
    return MobulaError(.init(String(parts[0])), String(parts[1]))
  }
}
