internal import FoundationEssentials
internal import Glibc
public import MobulaCore
internal import NIOCore
internal import NIOSSL

/// Mutual TLS 1.3 among the processes of a cluster.
///
/// A peer belongs to the cluster when the cluster's own CA has signed its certificate, whatever name is in it;
/// the CAs of the system don't count.
public struct ClusterTLS: Sendable, CustomStringConvertible {
  var client: NIOSSLContext
  let server: NIOSSLContext
  /// When this side's certificate expires.
  private let expiry: Date

  /// Reads `ca.pem`, `cert.pem` and `key.pem`.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when a file can't be read, `invalidArgument` when one holds something
  ///   else, or they don't belong together; `unauthenticated` for a certificate that has expired.
  public init(_ folder: CertificateFolder) throws(MobulaError) {
    try self.init(folder, isChecked: true)
  }

  /// - Parameter isChecked: whether a certificate that has expired is refused at once.
  package init(_ folder: CertificateFolder, isChecked: Bool) throws(MobulaError) {
    let chain = try Self.certificates(folder.certificate)
    let authorities = try Self.certificates(folder.authority)
    let expiry = Date(timeIntervalSince1970: Double(chain.map(\.notValidAfter).min() ?? 0))
    guard !isChecked || expiry > .now else {
      throw MobulaError(
        .unauthenticated,
        "The certificate \(folder.certificate) expired at \(expiry.formatted(.iso8601)): make a new one with `mobula certificates`."
      )
    }
    let key: NIOSSLPrivateKey
    do {
      key = try NIOSSLPrivateKey(bytes: Array(readSmallFile(folder.key).utf8), format: .pem)
    } catch let error as MobulaError {
      throw error
    } catch {
      throw MobulaError(.invalidArgument, "\(folder.key) holds no private key in PEM format: copy it again.")
    }
    var server = TLSConfiguration.makeServerConfiguration(
      certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
    var client = TLSConfiguration.makeClientConfiguration()
    client.certificateChain = server.certificateChain
    client.privateKey = server.privateKey
    server.minimumTLSVersion = .tlsv13
    client.minimumTLSVersion = .tlsv13
    server.trustRoots = .certificates(authorities)
    client.trustRoots = .certificates(authorities)
    // On either side this asks the other for a certificate and refuses one without.
    server.certificateVerification = .noHostnameVerification
    client.certificateVerification = .noHostnameVerification
    // How long a peer may take to say goodbye, beyond which the connection is cut.
    server.shutdownTimeout = .seconds(1)
    client.shutdownTimeout = .seconds(1)
    do {
      self.server = try NIOSSLContext(configuration: server)
      self.client = try NIOSSLContext(configuration: client)
    } catch {
      throw MobulaError(
        .invalidArgument,
        "\(folder.certificate) and \(folder.key) don't belong together: take both from one folder of `mobula certificates`."
      )
    }
    self.expiry = expiry
  }

  private static func certificates(_ file: String) throws(MobulaError) -> [NIOSSLCertificate] {
    let text = try readSmallFile(file)
    let list = try? NIOSSLCertificate.fromPEMBytes(Array(text.utf8))
    guard let list, !list.isEmpty else {
      throw MobulaError(
        .invalidArgument, "\(file) holds no certificate in PEM format: take it from a folder of `mobula certificates`.")
    }
    return list
  }

  public var description: String { "TLS with a certificate that expires at \(expiry.formatted(.iso8601))" }
}
