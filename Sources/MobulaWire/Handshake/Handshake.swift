internal import Crypto
internal import MobulaCore

/// What both sides of a handshake share: its messages and its proofs.
///
/// 1. client: `ClientOpening`: magic, hello, nonce
/// 2. server: `ServerReply`: hello, nonce; or an error
/// 3. client: `ClientProof`
/// 4. server: `ServerReply`: proof; or an error
///
/// A proof is HMAC-SHA256 under the token's key over the prover's label, both nonces
/// and the SHA-256 of both openings as they were sent: it holds for one
/// connection, one direction, and these two hellos. A client whose token was made from
/// another says with its hello by which claims, and both prove that they have its key.
enum Handshake {
  static let magic = "mobula"
  static let nonceSize = 32
  static let clientLabel = Array("mobula client".utf8)
  static let serverLabel = Array("mobula server".utf8)
  /// Of what encrypts secrets on the connection.
  static let sealLabel = Array("mobula secret".utf8)
  /// From this wire version on peers know claims, and say which tokens they take.
  static let versionWithClaims = 3

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
    /// Which tokens of the cluster the server has, the newest first, as hints, to a client that has two.
    var tokens: [ByteString]?
  }

  /// As much of an opening as every version has, read first, so that
  /// a version that says hello differently is still told which one it needs.
  struct Version: Codable {
    struct Part: Codable {
      var wireVersion: Int
      var newestWireVersion: Int?
    }
    var magic: String?
    var hello: Part?
  }

  /// Everything that the two openings fixed, to be signed by both sides.
  struct Transcript {
    var clientNonce: [UInt8]
    var serverNonce: [UInt8]
    var clientOpening: [UInt8]
    var serverOpening: [UInt8]

    func proof(_ label: [UInt8], _ key: [UInt8]) -> [UInt8] {
      TokenSecret.code(
        key,
        [
          label, clientNonce, serverNonce, Array(SHA256.hash(data: clientOpening)),
          Array(SHA256.hash(data: serverOpening)),
        ])
    }
  }

  /// What two processes have agreed on.
  struct Session: Sendable, Equatable {
    /// The newest wire version that both speak.
    var version: Int
    /// What the client may do, for the server that it connected to.
    var authority: Authority
    /// Whether the client proved itself with another token of the cluster than the server's newest.
    var hasOldToken = false
    /// Known to these two alone, for secrets that one tells the other.
    var sealingKey: [UInt8]
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
  ///
  /// - Returns: the newest wire version that both speak.
  static func check(_ peer: Hello, against own: Hello) throws(MobulaError) -> Int {
    let version = try check(peer.wireVersion, upTo: peer.newestWireVersion, against: own)
    if let theirs = peer.cluster, let ours = own.cluster, theirs != ours {
      throw MobulaError(
        .mismatch,
        "\(peer.title) belongs to cluster \(theirs.short) and \(own.title) to cluster \(ours.short): connect to an address of the same cluster, or start it anew."
      )
    }
    return version
  }

  @discardableResult
  static func check(_ oldest: Int, upTo newest: Int?, against own: Hello) throws(MobulaError) -> Int {
    let newest = newest ?? oldest
    let ownNewest = own.newestWireVersion ?? own.wireVersion
    guard oldest <= newest else { throw violation("its wire versions end before they begin") }
    guard oldest <= ownNewest, own.wireVersion <= newest else {
      throw MobulaError(
        .mismatch,
        "The peer speaks wire version \(range(oldest, newest)) and \(own.title) speaks \(range(own.wireVersion, ownNewest)): use versions of Mobula that are at most one apart."
      )
    }
    return min(newest, ownNewest)
  }

  private static func range(_ oldest: Int, _ newest: Int) -> String {
    oldest == newest ? "\(oldest)" : "\(oldest) to \(newest)"
  }

  /// - Parameter isCluster: whether the cluster token was to be proved, and not one that was made from it.
  static func tokenRefused(_ isCluster: Bool) -> MobulaError {
    MobulaError(
      .unauthenticated,
      isCluster
        ? "The cluster token was refused: use the token that `mobula start --head` wrote (--token-file)."
        : "The token was refused: it was made from another cluster token, or is not for this process. `mobula token create` makes another."
    )
  }
}
