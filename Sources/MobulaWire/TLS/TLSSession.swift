package import MobulaCore
internal import NIOCore
internal import NIOSSL
internal import Synchronization

/// One side of a TLS connection without its socket: bytes in, bytes out, for threads that block.
///
/// One thread may encrypt while another decrypts. No call waits for anything but the other's cryptography.
package final class TLSSession: Sendable {
  package enum Side: Sendable { case client, server }

  /// Bytes as they go over the network.
  package struct Ciphertext: Sendable {
    fileprivate var buffer: ByteBuffer
    package func withUnsafeBytes<Result, Failure: Error>(
      _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
      var result: Swift.Result<Result, Failure>?
      buffer.withUnsafeReadableBytes { bytes in
        result = Swift.Result { () throws(Failure) in try body(bytes) }
      }
      return try result!.get()
    }
  }

  /// Memory for bytes on their way in or out, used again and again.
  package struct Staging: Sendable {
    fileprivate var buffer: ByteBuffer

    package init(capacity: Int) { buffer = ByteBufferAllocator().buffer(capacity: capacity) }

    package var count: Int { buffer.readableBytes }

    /// Lets `body` append up to `maximum` bytes; it returns how many it did.
    package mutating func append<Failure: Error>(
      _ maximum: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Int
    ) throws(Failure) -> Int {
      var failure: Failure?
      let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: maximum) { space in
        do throws(Failure) {
          return try body(UnsafeMutableRawBufferPointer(rebasing: space[..<maximum]))
        } catch {
          failure = error
          return 0
        }
      }
      if let failure { throw failure }
      return count
    }

    package mutating func append(_ bytes: [UInt8]) { buffer.writeBytes(bytes) }

    package mutating func clear() { buffer.clear() }
  }

  private struct State: Sendable {
    var channel: TLSChannel
  }

  private let peer: String
  private let state: Mutex<State>

  /// - Parameter peer: who is at the other end, as error messages call it.
  package init(_ tls: ClusterTLS, as side: Side, peer: String) throws(MobulaError) {
    self.peer = peer
    do {
      let channel =
        switch side {
        case .client: try TLSChannel(NIOSSLClientHandler(context: tls.client, serverHostname: nil))
        case .server: try TLSChannel(NIOSSLServerHandler(context: tls.server))
        }
      state = Mutex(State(channel: channel))
    } catch {
      throw TLSFailure.describe(error, peer: peer)
    }
  }

  deinit { state.withLock { $0.channel.end() } }

  /// Whether this side has done its part of the handshake, so that bytes may be encrypted.
  package var isEstablished: Bool { state.withLock { $0.channel.isEstablished } }

  /// Bytes for the peer that nobody asked for: of the handshake, or an alert.
  package func takeOutgoing() -> Ciphertext? {
    state.withLock { $0.channel.takeOutgoing() }.map { Ciphertext(buffer: $0) }
  }

  /// Encrypts all of `plain`. What comes out has to be sent before what comes out of any later call.
  package func encrypt(_ plain: Staging) throws(MobulaError) -> Ciphertext? {
    let (outgoing, failure) = state.withLock { state in
      let channel = state.channel
      channel.pipeline.syncOperations.writeAndFlush(NIOAny(plain.buffer), promise: nil)
      return (channel.takeOutgoing(), channel.isActive ? nil : channel.failure ?? ChannelError.ioOnClosedChannel)
    }
    if let failure { throw TLSFailure.describe(failure, peer: peer) }
    return outgoing.map { Ciphertext(buffer: $0) }
  }

  /// Takes bytes from the network, and puts what they decrypt to at the start of `destination`;
  /// what does not fit is kept for `takeSurplus`.
  ///
  /// - Returns: the number of bytes put there.
  package func decrypt(
    _ ciphertext: borrowing Staging, into destination: UnsafeMutableRawBufferPointer
  ) throws(MobulaError) -> Int {
    let buffer = ciphertext.buffer
    // Only addresses pass the lock, and only while this call lasts.
    let (start, room) = (UInt(bitPattern: destination.baseAddress), destination.count)
    let (count, failure) = state.withLock { state in
      let channel = state.channel
      channel.destination = UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(bitPattern: start), count: room)
      channel.pipeline.syncOperations.fireChannelRead(NIOAny(buffer))
      channel.pipeline.syncOperations.fireChannelReadComplete()
      let count = room - channel.destination.count
      channel.destination = UnsafeMutableRawBufferPointer(start: nil, count: 0)
      // What came before the end is taken first.
      return (count, channel.isActive || count > 0 ? nil : channel.failure ?? ChannelError.ioOnClosedChannel)
    }
    if let failure { throw TLSFailure.describe(failure, peer: peer) }
    return count
  }

  /// Decrypted bytes that an earlier call had no room for.
  ///
  /// - Returns: the number of bytes put at the start of `destination`.
  package func takeSurplus(into destination: UnsafeMutableRawBufferPointer) -> Int {
    let (start, room) = (UInt(bitPattern: destination.baseAddress), destination.count)
    return state.withLock { state in
      let channel = state.channel
      let count = min(room, channel.surplus.readableBytes)
      guard count > 0, let target = UnsafeMutableRawPointer(bitPattern: start) else { return 0 }
      channel.surplus.readWithUnsafeReadableBytes { bytes in
        target.copyMemory(from: bytes.baseAddress!, byteCount: count)
        return count
      }
      if channel.surplus.readableBytes == 0 { channel.surplus.clear() }
      return count
    }
  }

  /// Whether there are decrypted bytes that nobody has taken.
  package var hasSurplus: Bool { state.withLock { $0.channel.surplus.readableBytes > 0 } }
}
