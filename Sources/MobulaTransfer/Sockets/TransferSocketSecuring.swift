internal import Glibc
internal import MobulaCore
internal import MobulaWire

extension TransferSocket {
  /// Makes a connection that we made secure, if it is to be.
  ///
  /// - Throws: `MobulaError`: `unauthenticated` when one side does not accept the other's certificate,
  ///   `mismatch` when the peer does not speak TLS.
  func secureAsClient(_ tls: ClusterTLS?, _ patience: Patience) throws(MobulaError) {
    guard let tls else { return }
    let stream = SecureStream(try TLSSession(tls, as: .client, peer: peer), over: self)
    try stream.shakeHands(patience)
    secure(with: stream)
  }

  /// The other side of `secureAsClient`. A peer that does it otherwise is told so.
  func secureAsServer(
    _ tls: ClusterTLS?, token: ClusterToken, hello: Hello, _ patience: Patience
  ) throws(MobulaError) {
    let isSecure = try firstByte(patience) == TLSFailure.handshakeByte
    if isSecure != (tls != nil) {
      let failure = isSecure ? TLSFailure.unexpected : TLSFailure.required
      let refusal = ServerHandshake(token: token, hello: hello).refusal(of: failure)
      try send(Frame.encode(refusal))
      endGently()
      throw failure
    }
    guard let tls else { return }
    let stream = SecureStream(try TLSSession(tls, as: .server, peer: peer), over: self)
    do throws(MobulaError) {
      try stream.shakeHands(patience)
    } catch {
      endGently()
      throw error
    }
    secure(with: stream)
  }

  /// The first byte that the peer sends, which stays to be received.
  private func firstByte(_ patience: Patience) throws(MobulaError) -> UInt8 {
    var byte: UInt8 = 0
    try withUnsafeMutableBytes(of: &byte) { buffer throws(MobulaError) in
      _ = try receivePlain(into: buffer, patience, flags: CInt(MSG_PEEK))
    }
    return byte
  }

  /// Sends the end and reads on until the peer's: closing at once, with bytes of the peer's unread,
  /// would take from it the last message, which says why.
  private func endGently() {
    endSending()
    let patience = Patience(stall: .seconds(1), deadline: .now + .seconds(1))
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { buffer in
      do throws(MobulaError) {
        while true { _ = try receivePlain(into: buffer, patience) }
      } catch {}
    }
  }
}
