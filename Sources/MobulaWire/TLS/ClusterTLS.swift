internal import FoundationEssentials
internal import Glibc
public import MobulaCore
internal import NIOCore
internal import NIOSSL
internal import Synchronization

/// Mutual TLS 1.3 among the processes of a cluster.
///
/// A peer belongs to the cluster when the cluster's own CA has signed its certificate, whatever name is in it;
/// the CAs of the system don't count. The files are looked at for each connection, and read again when they have
/// changed: connections that there are stay as they are.
public struct ClusterTLS: Sendable, CustomStringConvertible {
  private let files: Files
  /// Instead of that from the files.
  var client: NIOSSLContext {
    get { ownClient ?? files.contexts.client }
    set { ownClient = newValue }
  }
  private var ownClient: NIOSSLContext?
  var server: NIOSSLContext { files.contexts.server }

  /// Reads `ca.pem`, `cert.pem` and `key.pem`.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when a file can't be read, `invalidArgument` when one holds something
  ///   else, or they don't belong together; `unauthenticated` for a certificate that has expired.
  public init(_ folder: CertificateFolder) throws(MobulaError) {
    try self.init(folder, isChecked: true)
  }

  /// - Parameter isChecked: whether a certificate that has expired is refused at once.
  package init(_ folder: CertificateFolder, isChecked: Bool) throws(MobulaError) {
    files = try Files(folder, isChecked: isChecked)
  }

  public var description: String {
    "TLS with a certificate that expires at \(files.contexts.expiry.formatted(.iso8601))"
  }
}

extension ClusterTLS {
  /// Has both sides that the files make prove themselves to each other, as two hosts with them would.
  ///
  /// - Throws: `MobulaError`: `unauthenticated` when they can't.
  package func checkItself() throws(MobulaError) {
    let (client, server) = (
      try TLSSession(self, as: .client, peer: "the other side"),
      try TLSSession(self, as: .server, peer: "the other side")
    )
    var failure: MobulaError?
    /// - Returns: whether there was anything to carry.
    func carry(from sender: TLSSession, to receiver: TLSSession) -> Bool {
      guard let outgoing = sender.takeOutgoing() else { return false }
      var staging = TLSSession.Staging(capacity: 16_384)
      outgoing.withUnsafeBytes { staging.append(Array($0)) }
      // Nothing but the handshake is said.
      let nowhere = UnsafeMutableRawBufferPointer(start: nil, count: 0)
      do throws(MobulaError) { _ = try receiver.decrypt(staging, into: nowhere) } catch { failure = failure ?? error }
      return true
    }
    while failure == nil, carry(from: client, to: server) || carry(from: server, to: client) {}
    guard failure != nil || !client.isEstablished || !server.isEstablished else { return }
    throw MobulaError(
      .unauthenticated,
      """
      None of the CAs in \(files.authority) made the certificate in \(files.certificate), or one of them has expired: take \
      both from one folder of `mobula certificates`.
      """)
  }
}

/// What a folder's files make, as long as they stay as they are.
private final class Files: Sendable {
  private struct State {
    var stamps: [FileStamp]
    var contexts: TLSContexts
    /// Of files that could not be used, so that they are not read again for each connection.
    var refused: [FileStamp]?
  }

  private let folder: CertificateFolder
  var authority: String { folder.authority }
  var certificate: String { folder.certificate }
  private let state: Mutex<State>

  init(_ folder: CertificateFolder, isChecked: Bool) throws(MobulaError) {
    self.folder = folder
    // Before they are read, so that what is written meanwhile is read again.
    let stamps = Self.stamps(of: folder) ?? []
    state = Mutex(State(stamps: stamps, contexts: try TLSContexts(folder, isChecked: isChecked)))
  }

  /// Those of the files as they are now; of the files before while these can't be read, don't belong together (they may
  /// just be copied), or have expired.
  var contexts: TLSContexts {
    guard let stamps = Self.stamps(of: folder) else { return state.withLock { $0.contexts } }
    if let known = state.withLock({ $0.stamps == stamps || $0.refused == stamps ? $0.contexts : nil }) { return known }
    let new = try? TLSContexts(folder, isChecked: true)
    return state.withLock { state in
      if let new { (state.stamps, state.contexts, state.refused) = (stamps, new, nil) } else { state.refused = stamps }
      return state.contexts
    }
  }

  /// `nil` when one of them is not there.
  private static func stamps(of folder: CertificateFolder) -> [FileStamp]? {
    let stamps = folder.hostFiles.compactMap { try? FileStamp(of: $0) }
    return stamps.count == folder.hostFiles.count ? stamps : nil
  }
}

/// Both sides of TLS, from one set of files.
private struct TLSContexts: Sendable {
  let client: NIOSSLContext
  let server: NIOSSLContext
  /// When this side's certificate expires.
  let expiry: Date

  init(_ folder: CertificateFolder, isChecked: Bool) throws(MobulaError) {
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
}
