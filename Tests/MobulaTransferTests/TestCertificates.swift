import FoundationEssentials
import Glibc
import MobulaCore

@testable import MobulaWire

/// Two clusters' certificates in a temporary folder, and what else a peer may come with.
final class TestCertificates: Sendable {
  let path: String

  init() throws {
    var template = Array("/tmp/mobula-tls-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw MobulaError.system("No folder") }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
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

  func folder(_ name: String) -> CertificateFolder { CertificateFolder(path + "/" + name) }

  func tls(_ name: String = "own") throws -> ClusterTLS { try ClusterTLS(folder(name), isChecked: false) }
}
