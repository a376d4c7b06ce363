internal import Crypto
internal import Glibc
public import MobulaCore

extension RPCConnection {
  /// Refuses a peer whose token is of another job.
  ///
  /// - Throws: `MobulaError` (`denied`).
  public func check(_ job: JobID) throws(MobulaError) {
    guard let authority, let own = authority.job, own != job else { return }
    throw MobulaError(.denied, "\(authority.title) may not touch job \(job): that needs its own token.")
  }

  /// Refuses a peer whose token is of another job than the object, whose names are not its to give or take.
  ///
  /// - Throws: `MobulaError` (`denied`).
  public func check(_ object: ObjectID) throws(MobulaError) {
    guard let authority, let own = authority.job, own != object.job else { return }
    throw MobulaError(
      .denied, "\(authority.title) may not touch object \(object), which is not of that job: a driver's token may.")
  }

  /// An object as the peer may see it: who works for another job knows the name that it asks by, and is told no other.
  package func shown(_ listing: ObjectListing, askedBy name: Name) -> ObjectListing {
    guard let job = authority?.job, job != listing.object.job else { return listing }
    var listing = listing
    listing.names = listing.names.filter { $0 == name }
    listing.furtherNames = nil
    return listing
  }

  /// Whether the peer has proved itself with an older token of the cluster than this side's newest.
  package var hasOldToken: Bool { session.hasOldToken }

  // MARK: Secrets

  /// Encrypts a secret for the peer, under a key that follows from the token and both nonces.
  ///
  /// Who has the token and has recorded the connection can read it, as they can the rest; with TLS they can't.
  package func seal(_ secret: String) -> ByteString {
    // Each side has its own mark, so that what one said can't come back to it.
    let side: [UInt8] = [authority == nil ? 0 : 1]
    guard
      let box = try? ChaChaPoly.seal(
        Array(secret.utf8), using: SymmetricKey(data: session.sealingKey), authenticating: side)
    else { preconditionFailure("a secret of bounded length can be encrypted") }
    return ByteString(Array(box.combined))
  }

  /// - Throws: `MobulaError` (`protocolViolation`) for what the peer has not sealed.
  package func open(_ sealed: ByteString) throws(MobulaError) -> String {
    let side: [UInt8] = [authority == nil ? 1 : 0]
    guard let box = try? ChaChaPoly.SealedBox(combined: sealed.bytes),
      let bytes = try? ChaChaPoly.open(box, using: SymmetricKey(data: session.sealingKey), authenticating: side)
    else {
      throw MobulaError(
        .protocolViolation, "A secret came that \(peer.title) has not sealed on this connection: look at its log.")
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// By the machine's clock.
func secondsSince1970() -> Int64 { Int64(time(nil)) }
