internal import Glibc
public import MobulaCore

/// A folder with what `--tls` needs: the cluster's CA, and a certificate of its with the key.
public struct CertificateFolder: Sendable, Hashable {
  public let path: String

  public init(_ path: String) { self.path = path }

  /// The certificate of the cluster's CA: the same on every host.
  public var authority: String { path + "/ca.pem" }
  /// The CA's key, which hosts don't need: only where certificates are made.
  public var authorityKey: String { path + "/ca.key" }
  public var certificate: String { path + "/cert.pem" }
  public var key: String { path + "/key.pem" }

  /// What hosts need.
  public var hostFiles: [String] { [authority, certificate, key] }

  /// The folder for one host of several.
  public func folder(for host: String) -> CertificateFolder {
    // The colons of an IPv6 address would have to be quoted in most places.
    CertificateFolder(path + "/" + String(host.map { $0 == ":" ? "-" : $0 }))
  }

  /// Makes a CA for a cluster and writes its certificate and key.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when there is one, which stays as it is; `inputOutput`.
  public func createAuthority(cluster: String, validity: Range<Int>) throws(MobulaError) -> CertificateAuthority {
    try makeFolder()
    try checkAbsent([authority, authorityKey])
    let new = CertificateAuthority(cluster: cluster, validity: validity)
    try writeNew(authorityKey, new.issued.key, mode: 0o600)
    try writeNew(authority, new.issued.certificate, mode: 0o644)
    return new
  }

  /// The CA that was made here.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when it isn't here, `invalidArgument` when it can't be read.
  public func readAuthority() throws(MobulaError) -> CertificateAuthority {
    try CertificateAuthority(
      .init(certificate: try readSmallFile(authority), key: try readSmallFile(authorityKey)))
  }

  /// Makes a certificate and writes it beside a copy of the CA's.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when there is one, which stays as it is; `inputOutput`.
  public func createCertificate(
    of issuer: CertificateAuthority, name: String, hosts: [String], validity: Range<Int>
  ) throws(MobulaError) {
    try makeFolder()
    try checkAbsent([certificate, key])
    let issued = issuer.issue(name: name, hosts: hosts, validity: validity)
    try writeNew(key, issued.key, mode: 0o600)
    try writeNew(certificate, issued.certificate, mode: 0o644)
    if access(authority, F_OK) != 0 { try writeNew(authority, issuer.issued.certificate, mode: 0o644) }
  }

  /// Copies what hosts need into `target`, in place of what is there.
  ///
  /// - Throws: `MobulaError` (`inputOutput`).
  public func copy(to target: CertificateFolder) throws(MobulaError) {
    // One that is copied onto itself would be lost on the way.
    var (from, to) = (stat(), stat())
    if stat(path, &from) == 0, stat(target.path, &to) == 0, from.st_dev == to.st_dev, from.st_ino == to.st_ino {
      return
    }
    try target.makeFolder()
    let files = target.hostFiles.map { (new: "\($0).new", file: $0) }
    for (source, file) in zip(hostFiles, files) {
      let text = try readSmallFile(source)
      unlink(file.new)
      try writeNew(file.new, text, mode: 0o600)
    }
    // Each as a whole, and all as nearly at once as it goes: processes that run may read them in between.
    for (new, file) in files { try systemCall("\(file) can't be replaced") { rename(new, file) } }
  }

  /// Whether one of the CAs in `ca.pem` is in that of `other` as well, so that hosts with either prove themselves to each
  /// other.
  ///
  /// - Throws: `MobulaError` (`inputOutput`).
  package func sharesAuthority(with other: CertificateFolder) throws(MobulaError) -> Bool {
    try !Self.certificates(in: authority).isDisjoint(with: Self.certificates(in: other.authority))
  }

  /// What stands between the marks of a PEM file, without the ends of lines.
  private static func certificates(in file: String) throws(MobulaError) -> Set<String> {
    let lines = try readSmallFile(file).split(whereSeparator: \.isNewline)
    var result: Set<String> = []
    var current: String?
    for line in lines {
      switch line {
      case "-----BEGIN CERTIFICATE-----": current = ""
      case "-----END CERTIFICATE-----":
        if let certificate = current { result.insert(certificate) }
        current = nil
      default: current? += line.filter { !$0.isWhitespace }
      }
    }
    return result
  }

  /// Removes what `copy` wrote.
  public func removeCopy() {
    for file in hostFiles { unlink(file) }
    rmdir(path)
  }

  private func makeFolder() throws(MobulaError) {
    var partial = path.hasPrefix("/") ? "" : "."
    for part in path.split(separator: "/") {
      partial += "/" + part
      if mkdir(partial, 0o700) != 0, currentErrno() != EEXIST {
        throw MobulaError.system("The folder \(path) can't be made")
      }
    }
  }

  private func checkAbsent(_ files: [String]) throws(MobulaError) {
    for file in files where access(file, F_OK) == 0 {
      throw MobulaError(
        .alreadyExists, "\(file) is there already and is not replaced: remove it, or choose another --directory.")
    }
  }
}

/// All of a file of at most 1 MiB.
func readSmallFile(_ path: String) throws(MobulaError) -> String {
  String(decoding: try MobulaCore.readSmallFile(path, "\(path) can't be read", limit: 1 << 20), as: UTF8.self)
}

/// Writes a file that must not be there yet.
private func writeNew(_ path: String, _ text: String, mode: mode_t) throws(MobulaError) {
  let what = "\(path) can't be written"
  let descriptor = OwnedDescriptor(
    owning: try systemCall(what) { open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode) })
  let bytes = Array(text.utf8)
  var written = 0
  while written < bytes.count {
    written += try systemCall(what) {
      bytes.withUnsafeBytes { write(descriptor.rawValue, $0.baseAddress! + written, bytes.count - written) }
    }
  }
}
