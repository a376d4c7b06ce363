import FoundationEssentials
import Glibc
import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaWire

struct CertificateTests {
  private let certificates: TestCertificates

  init() throws { certificates = try TestCertificates() }

  @Test func elementsAreAsTheRulesSay() {
    #expect(DER.integer([0]) == [2, 1, 0])
    #expect(DER.integer([0, 0, 127]) == [2, 1, 127])
    #expect(DER.integer([128]) == [2, 2, 0, 128])
    #expect(DER.boolean(true) == [1, 1, 255])
    #expect(DER.objectIdentifier(X509.ecdsaWithSHA256) == [6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2])
    #expect(DER.octetString([UInt8](repeating: 7, count: 128)).prefix(3) == [4, 0x81, 128])
    #expect(DER.octetString([UInt8](repeating: 7, count: 300)).prefix(4) == [4, 0x82, 1, 44])
    #expect(X509.time(0) == [0x17, 13] + Array("700101000000Z".utf8))
    #expect(X509.time(2_524_607_999) == [0x17, 13] + Array("491231235959Z".utf8))
    #expect(X509.time(2_524_608_000) == [0x18, 15] + Array("20500101000000Z".utf8))
  }

  @Test func summariesSayWhatWasAskedFor() throws {
    let own = try CertificateSummary(file: certificates.folder("own").certificate)
    #expect(own.subject == "host")
    #expect(own.issuer == "Mobula cluster own")
    #expect(own.names == ["host.example", "10.0.0.1", "::1"])
    #expect(!own.isAuthority)
    let authority = try CertificateSummary(file: certificates.folder("own").authority)
    #expect(authority.subject == authority.issuer)
    #expect(authority.isAuthority)
    #expect(own.validity.upperBound == authority.validity.upperBound)
    let long = CertificateAuthority(cluster: "long", validity: 1_000..<4_000_000_000)
    #expect(try CertificateSummary(pem: long.issued.certificate).validity == 1_000..<4_000_000_000)
  }

  /// Certificates are read from files that anybody may have written.
  @Test func damagedCertificatesAreErrors() throws {
    let text = CertificateAuthority(cluster: "x", validity: 0..<1).issued.certificate
    let lines = text.split(separator: "\n")
    let bytes = Array(try #require(Data(base64Encoded: lines.dropFirst().dropLast().joined())))
    for count in 0..<bytes.count {
      #expect(throws: MobulaError.self) {
        try CertificateSummary(pem: X509.pem(certificate: Array(bytes[..<count])))
      }
    }
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      var damaged = bytes
      for _ in 0..<3 { damaged[Int.random(in: damaged.indices, using: &generator)] = .random(in: 0...255) }
      _ = try? CertificateSummary(pem: X509.pem(certificate: damaged))
    }
  }

  @Test func aCertificateThatNoneOfTheCAsMadeIsRefused() throws {
    try certificates.tls().checkItself()
    try certificates.tls("other").checkItself()
    for name in ["mixed", "expired"] {
      let error = #expect(throws: MobulaError.self) { try certificates.tls(name).checkItself() }
      #expect(error?.code == .unauthenticated && error?.message.contains("None of the CAs") == true, "\(name)")
    }
  }

  @Test func keysAreForTheirOwnerAlone() throws {
    for file in [certificates.folder("own").authorityKey, certificates.folder("own").key] {
      var information = stat()
      #expect(stat(file, &information) == 0)
      #expect(information.st_mode & 0o777 == 0o600)
    }
  }

  @Test func nothingIsReplaced() throws {
    let folder = certificates.folder("own")
    let before = try readSmallFile(folder.key)
    let authority = try folder.readAuthority()
    let error = #expect(throws: MobulaError.self) {
      try folder.createCertificate(of: authority, name: "again", hosts: [], validity: 0..<1)
    }
    #expect(error?.code == .alreadyExists)
    #expect(throws: MobulaError.self) { try folder.createAuthority(cluster: "own", validity: 0..<1) }
    #expect(try readSmallFile(folder.key) == before)
  }

  /// A CA that was read again signs for the same cluster.
  @Test func openSSLAgrees() async throws {
    guard access("/usr/bin/openssl", X_OK) == 0 else {
      print("skipped: /usr/bin/openssl is not installed")
      return
    }
    let (own, other) = (certificates.folder("own"), certificates.folder("other"))
    let now = Int(time(nil))
    let added = certificates.folder("added")
    try added.createCertificate(
      of: own.readAuthority(), name: "added", hosts: ["10.0.0.3"], validity: now - 60..<now + 60)
    func verify(_ file: String, by authority: String, _ purpose: String) async throws -> Bool {
      try await ChildProcess.spawn(
        "/usr/bin/openssl", ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", authority, file],
        output: .null, errors: .null
      ).waitForExit().isSuccess
    }
    for file in [own.certificate, added.certificate] {
      #expect(try await verify(file, by: own.authority, "sslserver"))
      #expect(try await verify(file, by: own.authority, "sslclient"))
      #expect(try await !verify(file, by: other.authority, "sslserver"))
    }
    #expect(try await !verify(certificates.folder("expired").certificate, by: own.authority, "sslclient"))
  }
}
