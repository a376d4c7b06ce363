internal import Glibc
internal import MobulaCore
internal import MobulaWire
internal import Synchronization

/// TLS over a `TransferSocket`, driven by the threads that block on it.
///
/// The session's lock is held for cryptography only. The locks here are each for one direction,
/// which one thread at a time uses, and are held while that thread waits for the network.
final class SecureStream: Sendable {
  /// Plain bytes that are encrypted at a time: few enough to stay in the cache until they are sent.
  private static let piece = 131_072
  /// What a record (RFC 8446, 5.2) adds to its 16 KiB: header, type and tag.
  private static let record = 16_384
  private static let overhead = 22

  private let session: TLSSession
  /// The socket owns this.
  private unowned let socket: TransferSocket
  /// Plain bytes that wait for those that follow.
  private let sending = Mutex(TLSSession.Staging(capacity: piece + 4096))
  private let receiving = Mutex(TLSSession.Staging(capacity: 2 * piece))

  init(_ session: TLSSession, over socket: TransferSocket) {
    self.session = session
    self.socket = socket
  }

  /// Exchanges the messages of the handshake until this side may send.
  func shakeHands(_ patience: Patience) throws(MobulaError) {
    try flush()
    while !session.isEstablished {
      do throws(MobulaError) {
        _ = try receiveSome(into: UnsafeMutableRawBufferPointer(start: nil, count: 0), patience)
      } catch {
        // An alert tells the peer why.
        try? flush()
        throw error
      }
      try flush()
    }
  }

  private func flush() throws(MobulaError) {
    if let bytes = session.takeOutgoing() { try send(bytes) }
  }

  private func send(_ bytes: TLSSession.Ciphertext) throws(MobulaError) {
    try bytes.withUnsafeBytes { bytes throws(MobulaError) in try socket.sendPlain(bytes) }
  }

  private func encryptAndSend(_ plain: inout TLSSession.Staging) throws(MobulaError) {
    defer { plain.clear() }
    if let bytes = try session.encrypt(plain) { try send(bytes) }
  }

  /// - Parameter more: whether the bytes may wait for those that follow at once.
  func send(_ bytes: [UInt8], more: Bool) throws(MobulaError) {
    try sending.withLock { plain throws(MobulaError) in
      plain.append(bytes)
      if !more || plain.count >= Self.piece { try encryptAndSend(&plain) }
    }
  }

  func sendFile(_ file: CInt, offset: Int, count: Int, progress: (Int) -> Void) throws(MobulaError) {
    try sending.withLock { plain throws(MobulaError) in
      var read = 0
      while read < count {
        let wanted = min(Self.piece - min(plain.count, Self.piece / 2), count - read)
        let taken = try plain.append(wanted) { space throws(MobulaError) in
          try systemCall("The memory of an object can't be read") {
            pread(file, space.baseAddress, space.count, offset + read)
          }
        }
        guard taken > 0 else { throw TransferSocket.fileEnded }
        read += taken
        try encryptAndSend(&plain)
        progress(taken)
      }
    }
  }

  /// Fills `buffer`.
  func receive(into buffer: UnsafeMutableRawBufferPointer, _ patience: Patience) throws(MobulaError) {
    var received = session.takeSurplus(into: buffer)
    while received < buffer.count {
      received += try receiveSome(into: UnsafeMutableRawBufferPointer(rebasing: buffer[received...]), patience)
    }
  }

  var hasReceived: Bool { session.hasSurplus }

  private func receiveSome(
    into buffer: UnsafeMutableRawBufferPointer, _ patience: Patience
  ) throws(MobulaError) -> Int {
    try receiving.withLock { encrypted throws(MobulaError) in
      // About what `buffer` takes, since what it doesn't has to be kept and copied once more.
      let wanted = buffer.count + (buffer.count / Self.record + 1) * Self.overhead
      encrypted.clear()
      _ = try encrypted.append(min(max(wanted, Self.record + Self.overhead), 2 * Self.piece)) {
        space throws(MobulaError) in try socket.receivePlain(into: space, patience)
      }
      return try session.decrypt(encrypted, into: buffer)
    }
  }
}
