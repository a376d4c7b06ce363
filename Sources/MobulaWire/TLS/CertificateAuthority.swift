internal import Crypto
internal import FoundationEssentials
public import MobulaCore

/// What signs the certificates of one cluster: a key on P-256 and a certificate of its own.
public struct CertificateAuthority: Sendable {
  /// A certificate and its key, as PEM.
  public struct Issued: Sendable {
    public var certificate: String
    /// Secret: PKCS #8, not encrypted.
    public var key: String
  }

  private let key: P256.Signing.PrivateKey
  private let subject: [UInt8]
  private let expiry: Int
  /// Its own certificate and key.
  public let issued: Issued

  /// A new authority.
  ///
  /// - Parameters:
  ///   - cluster: what its certificate is named after.
  ///   - validity: seconds since 1970 between which it is valid.
  public init(cluster: String, validity: Range<Int>) {
    let key = P256.Signing.PrivateKey()
    let subject = X509.name("Mobula cluster \(cluster)")
    self.key = key
    self.subject = subject
    expiry = validity.upperBound
    let certificate = Self.certificate(
      subject: subject, of: key.publicKey, issuer: subject, signedWith: key, validity: validity,
      extensions: [
        X509.extension(
          X509.basicConstraints, isCritical: true, DER.sequence(DER.boolean(true), DER.integer([0]))),
        // keyCertSign and cRLSign.
        X509.extension(X509.keyUsage, isCritical: true, DER.bitString([0b0000_0110], unused: 1)),
      ])
    issued = Issued(certificate: X509.pem(certificate: certificate), key: key.pemRepresentation)
  }

  /// The authority whose certificate and key these are.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) when they are no such, or don't belong together.
  public init(_ issued: Issued) throws(MobulaError) {
    let summary = try CertificateSummary(pem: issued.certificate)
    guard let key = try? P256.Signing.PrivateKey(pemRepresentation: issued.key) else {
      throw MobulaError(
        .invalidArgument, "The CA's key can't be read: it must be one on P-256, as PEM (`mobula certificates create`).")
    }
    guard summary.publicKey == Array(key.publicKey.x963Representation) else {
      throw MobulaError(.invalidArgument, "The CA's key does not belong to its certificate: take both from one folder.")
    }
    self.key = key
    self.subject = summary.subjectBytes
    self.issued = issued
    expiry = summary.validity.upperBound
  }

  /// A certificate for hosts of the cluster, which are both servers and clients of each other.
  ///
  /// It is valid no longer than the authority itself.
  public func issue(name: String, hosts: [String], validity: Range<Int>) -> Issued {
    let key = P256.Signing.PrivateKey()
    var extensions = [
      X509.extension(X509.basicConstraints, isCritical: true, DER.sequence()),
      X509.extension(X509.keyUsage, isCritical: true, DER.bitString([0b1000_0000], unused: 7)),
      X509.extension(
        X509.extendedKeyUsage, isCritical: false,
        DER.sequence(
          DER.objectIdentifier(X509.serverAuthentication), DER.objectIdentifier(X509.clientAuthentication))),
      X509.extension(
        X509.authorityKeyIdentifier, isCritical: false,
        DER.sequence(DER.element(DER.Tag.implicit(0), X509.keyIdentifier(self.key.publicKey)))),
    ]
    if !hosts.isEmpty {
      extensions.append(
        X509.extension(
          X509.subjectAlternativeName, isCritical: false,
          DER.element(DER.Tag.sequence, hosts.flatMap(X509.alternativeName))))
    }
    let certificate = Self.certificate(
      subject: X509.name(name), of: key.publicKey, issuer: subject, signedWith: self.key,
      validity: validity.lowerBound..<max(validity.lowerBound + 1, min(validity.upperBound, expiry)),
      extensions: extensions)
    return Issued(certificate: X509.pem(certificate: certificate), key: key.pemRepresentation)
  }

  private static func certificate(
    subject: [UInt8], of key: P256.Signing.PublicKey, issuer: [UInt8], signedWith signer: P256.Signing.PrivateKey,
    validity: Range<Int>, extensions: [[UInt8]]
  ) -> [UInt8] {
    let algorithm = DER.sequence(DER.objectIdentifier(X509.ecdsaWithSHA256))
    // A serial number may have 20 bytes at most, of which at least 64 bits are to be random.
    let serial = [0x01] + randomBytes(16)
    let identifier = X509.extension(
      X509.subjectKeyIdentifier, isCritical: false, DER.octetString(X509.keyIdentifier(key)))
    let content = DER.sequence(
      // Version 3.
      DER.element(DER.Tag.explicit(0), DER.integer([2])), DER.integer(serial), algorithm, issuer,
      DER.sequence(X509.time(validity.lowerBound), X509.time(validity.upperBound)), subject,
      Array(key.derRepresentation),
      DER.element(DER.Tag.explicit(3), DER.element(DER.Tag.sequence, extensions.flatMap { $0 } + identifier)))
    guard let signature = try? signer.signature(for: content) else {
      preconditionFailure("a P-256 key signs any bytes")
    }
    return DER.sequence(content, algorithm, DER.bitString(Array(signature.derRepresentation)))
  }
}
