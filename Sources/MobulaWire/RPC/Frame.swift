public import MobulaCore

/// How bytes are cut into messages on every connection: the length of the body
/// as four bytes, big-endian, then the body.
public enum Frame {
  /// Bytes of the length.
  public static let headerSize = 4
  /// The longest body that an RPC connection takes unless told otherwise: 16 MiB.
  public static let defaultLimit = ByteCount(16 << 20)
  /// The longest body while nobody has proved anything yet.
  public static let handshakeLimit = ByteCount(4096)

  /// The four bytes before a body of `count` bytes.
  public static func header(count: Int) -> [UInt8] {
    let length = UInt32(count)
    return [UInt8(length >> 24), UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255)]
  }

  /// `body` with its header.
  public static func encode(_ body: [UInt8]) -> [UInt8] { header(count: body.count) + body }

  /// The length that a header announces.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) for more than `limit`, before anything was reserved for it.
  public static func length(header: [UInt8], limit: ByteCount) throws(MobulaError) -> Int {
    precondition(header.count == headerSize, "a header has four bytes")
    let length = header.reduce(0) { $0 << 8 | Int($1) }
    guard length <= limit.bytes else {
      throw MobulaError(
        .protocolViolation,
        "A frame of \(length) bytes was announced where at most \(limit.bytes) are allowed: check that a Mobula process is at that address, and no other program."
      )
    }
    return length
  }
}

/// Cuts a byte stream into the bodies of frames, however the bytes arrive.
public struct FrameDecoder: Sendable {
  /// The longest body; may change between frames, as after the handshake.
  public var limit: ByteCount
  private var header: [UInt8] = []
  private var body: [UInt8] = []
  /// Bytes of the body to come; `nil` while the header is incomplete.
  private var missing: Int?

  /// What is reserved on the word of a header alone; more follows as bytes arrive.
  private static let trustedReserve = 65_536

  public init(limit: ByteCount) {
    self.limit = limit
    header.reserveCapacity(Frame.headerSize)
  }

  /// Takes bytes from the front of `input` up to the end of the next frame, and returns its body;
  /// `nil` when all were taken and the frame is not complete.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) for a frame over the limit; the stream is of no use after it.
  public mutating func next(_ input: inout UnsafeRawBufferPointer) throws(MobulaError) -> [UInt8]? {
    if missing == nil {
      let part = min(Frame.headerSize - header.count, input.count)
      header.append(contentsOf: input[..<part])
      input = UnsafeRawBufferPointer(rebasing: input.dropFirst(part))
      guard header.count == Frame.headerSize else { return nil }
      let length = try Frame.length(header: header, limit: limit)
      body.reserveCapacity(min(length, Self.trustedReserve))
      missing = length
    }
    let taken = min(missing!, input.count)
    body.append(contentsOf: input[..<taken])
    input = UnsafeRawBufferPointer(rebasing: input.dropFirst(taken))
    missing! -= taken
    guard missing == 0 else { return nil }
    defer {
      header.removeAll(keepingCapacity: true)
      body = []
      missing = nil
    }
    return body
  }

  /// To be called at the end of the stream.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) in the middle of a frame.
  public func finish() throws(MobulaError) {
    guard header.isEmpty else {
      throw MobulaError(
        .connectionClosed,
        "The connection ended in the middle of a frame, \(missing.map { "\($0) bytes before its end" } ?? "in its header"): look at the peer's log, and try again."
      )
    }
  }
}
