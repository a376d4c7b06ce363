internal import FoundationEssentials
internal import Glibc
internal import MobulaCore
public import MobulaWire

/// Two clusters' certificates in a temporary folder, removed with their owner, and what else a peer may come with.
public final class TestCertificates: Sendable {
  public let path: String

  public init() throws {
    path = try makeTemporaryDirectory("tls", in: "/tmp")
    let now = Int(time(nil))
    let valid = now - 3600..<now + 3600
    let own = try CertificateFolder(path + "/own").createAuthority(cluster: "own", validity: valid)
    let other = try CertificateFolder(path + "/other").createAuthority(cluster: "other", validity: valid)
    try folder("own").createCertificate(
      of: own, name: "host", hosts: ["host.example", "10.0.0.1", "::1"], validity: valid)
    try folder("other").createCertificate(of: other, name: "stranger", hosts: [], validity: valid)
    try folder("expired").createCertificate(of: own, name: "old", hosts: [], validity: now - 7200..<now - 60)
    // Trusts our CA, and has its own certificate from elsewhere.
    try folder("mixed").createCertificate(of: other, name: "stranger", hosts: [], validity: valid)
    unlink(folder("mixed").authority)
    try FileManager.default.copyItem(atPath: folder("own").authority, toPath: folder("mixed").authority)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  public func folder(_ name: String) -> CertificateFolder { CertificateFolder(path + "/" + name) }

  /// - Parameter name: `own`, `other` (of another cluster), `expired`, or `mixed` (trusts ours, and has one of the other).
  /// - Throws: `MobulaError` when a file can't be read.
  public func tls(_ name: String = "own") throws -> ClusterTLS { try ClusterTLS(folder(name), isChecked: false) }
}
