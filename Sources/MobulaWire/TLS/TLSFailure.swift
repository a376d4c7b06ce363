package import MobulaCore
internal import NIOCore
internal import NIOSSL

/// What is said of TLS that fails, and how its first byte is told from other bytes.
package enum TLSFailure {
  /// The first byte of a TLS handshake; no frame of ours is long enough to begin with it.
  package static let handshakeByte: UInt8 = 0x16
  /// The first byte of a TLS alert, which is how a TLS port may answer plain bytes.
  package static let alertByte: UInt8 = 0x15

  /// To a peer that speaks plainly to a process that wants TLS.
  package static var required: MobulaError {
    MobulaError(
      .mismatch,
      "This cluster uses TLS and the connection came without: start with --tls and the cluster's certificates.")
  }

  /// Of a peer that speaks TLS to a process that doesn't.
  package static var unexpected: MobulaError {
    MobulaError(
      .mismatch, "The peer uses TLS and this process does not: start both sides with --tls, or neither.")
  }

  /// What went wrong before the connection was secure, or with the first bytes after.
  static func describe(_ error: any Error, peer: String) -> MobulaError {
    let text = "\(error)"
    func has(_ marks: String...) -> Bool { marks.contains { text.contains($0) } }
    if has("PEER_DID_NOT_RETURN_A_CERTIFICATE") {
      return MobulaError(
        .unauthenticated, "\(peer) has no certificate: start it with --tls and the cluster's certificates.")
    }
    if has("CERTIFICATE_VERIFY_FAILED") {
      return MobulaError(
        .unauthenticated,
        "The certificate of \(peer) was not made by this cluster's CA, or has expired: give both sides certificates of one CA (`mobula certificates show`)."
      )
    }
    if has("ALERT_CERTIFICATE_EXPIRED") {
      return MobulaError(
        .unauthenticated,
        "\(peer) says that this side's certificate has expired: make a new one (`mobula certificates show` tells when)."
      )
    }
    if has(
      "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN", "ALERT_CERTIFICATE_REQUIRED",
      "ALERT_DECRYPT_ERROR", "ALERT_ACCESS_DENIED", "ALERT_UNSUPPORTED_CERTIFICATE", "CERTIFICATE_REQUIRED")
    {
      return MobulaError(
        .unauthenticated,
        "\(peer) refused this side's certificate: use one that the same cluster's CA made (--tls, `mobula certificates show`)."
      )
    }
    if has("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "INVALID_OUTER_RECORD_TYPE") {
      return MobulaError(
        .mismatch, "\(peer) does not speak TLS: start it with --tls too, or this side without.")
    }
    if has("UNSUPPORTED_PROTOCOL", "ALERT_PROTOCOL_VERSION") {
      return MobulaError(.mismatch, "\(peer) does not speak TLS 1.3: check that the address is a Mobula process's.")
    }
    if has("uncleanShutdown", "eofDuringHandshake") || error is ChannelError {
      return MobulaError(
        .connectionClosed, "\(peer) closed the TLS connection: look at its log, and try again.")
    }
    return MobulaError(.protocolViolation, "TLS with \(peer) failed (\(text)): check that it is a Mobula process.")
  }

  static func isTLS(_ error: any Error) -> Bool {
    error is NIOSSLError || error is BoringSSLError || error is NIOSSLExtraError
  }

  static func isEnd(_ error: any Error) -> Bool { (error as? NIOSSLError) == .uncleanShutdown }
}
