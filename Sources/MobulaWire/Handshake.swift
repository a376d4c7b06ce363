internal import Crypto
internal import MobulaCore

/// What both sides of a handshake share: its messages and its proofs.
///
/// 1. client: `ClientOpening`: magic, hello, nonce
/// 2. server: `ServerReply`: hello, nonce; or an error
/// 3. client: `ClientProof`
/// 4. server: `ServerReply`: proof; or an error
///
/// A proof is HMAC-SHA256 under the token over the prover's label, both nonces
/// and the SHA-256 of both openings as they were sent: it holds for one
/// connection, one direction, and these two hellos.
enum Handshake {
  static let magic = "mobula"
  static let nonceSize = 32
  static let clientLabel = Array("mobula client".utf8)
  static let serverLabel = Array("mobula server".utf8)

  struct ClientOpening: Codable {
    var magic: String
    var hello: Hello
    var nonce: [UInt8]
  }

  struct ClientProof: Codable {
    var proof: [UInt8]
  }

  struct ServerReply: Codable {
    var hello: Hello?
    var nonce: [UInt8]?
    var proof: [UInt8]?
    var error: MobulaError?
  }

  /// As much of an opening as every version has, read first, so that
  /// a version that says hello differently is still told which one it needs.
  struct Version: Codable {
    struct Part: Codable { var wireVersion: Int }
    var magic: String?
    var hello: Part?
  }

  /// Everything that the two openings fixed, to be signed by both sides.
  struct Transcript {
    var clientNonce: [UInt8]
    var serverNonce: [UInt8]
    var clientOpening: [UInt8]
    var serverOpening: [UInt8]

    func proof(_ label: [UInt8], _ token: ClusterToken) -> [UInt8] {
      token.proof(over: [
        label, clientNonce, serverNonce, Array(SHA256.hash(data: clientOpening)),
        Array(SHA256.hash(data: serverOpening)),
      ])
    }
  }

  static func encode(_ message: some Encodable) -> [UInt8] {
    do {
      return try CBOREncoder().encode(message)
    } catch {
      preconditionFailure("handshake messages are plain values, which always encode: \(error)")
    }
  }

  static func decode<Message: Decodable>(
    _ type: Message.Type, from frame: [UInt8], expecting what: String
  ) throws(MobulaError) -> Message {
    guard frame.count <= Frame.handshakeLimit.bytes, let message = try? CBORDecoder().decode(type, from: frame) else {
      throw violation("something else came where \(what) was expected")
    }
    return message
  }

  static func violation(_ what: String) -> MobulaError {
    MobulaError(
      .protocolViolation, "The peer does not speak Mobula's protocol (\(what)): check that the address is right.")
  }

  /// Whether two processes can talk at all.
  static func check(_ peer: Hello, against own: Hello) throws(MobulaError) {
    try check(version: peer.wireVersion, against: own)
    if let theirs = peer.cluster, let ours = own.cluster, theirs != ours {
      throw MobulaError(
        .mismatch,
        "\(peer.title) belongs to cluster \(theirs.short) and \(own.title) to cluster \(ours.short): connect to an address of the same cluster, or start it anew."
      )
    }
  }

  static func check(version: Int, against own: Hello) throws(MobulaError) {
    guard version == own.wireVersion else {
      throw MobulaError(
        .mismatch,
        "The peer speaks wire version \(version) and \(own.title) speaks \(own.wireVersion): use the same version of Mobula everywhere."
      )
    }
  }

  static func tokenRefused() -> MobulaError {
    MobulaError(
      .unauthenticated,
      "The cluster token was refused: use the token that `mobula start --head` wrote (--token-file).")
  }
}
