internal import Crypto
internal import FoundationEssentials
internal import Glibc

/// The identifiers and small parts that certificates (RFC 5280) are put together from.
enum X509 {
  static let commonName = [2, 5, 4, 3]
  static let ecdsaWithSHA256 = [1, 2, 840, 10045, 4, 3, 2]
  static let subjectKeyIdentifier = [2, 5, 29, 14]
  static let keyUsage = [2, 5, 29, 15]
  static let subjectAlternativeName = [2, 5, 29, 17]
  static let basicConstraints = [2, 5, 29, 19]
  static let authorityKeyIdentifier = [2, 5, 29, 35]
  static let extendedKeyUsage = [2, 5, 29, 37]
  static let serverAuthentication = [1, 3, 6, 1, 5, 5, 7, 3, 1]
  static let clientAuthentication = [1, 3, 6, 1, 5, 5, 7, 3, 2]

  static func name(_ text: String) -> [UInt8] {
    DER.sequence(DER.set(DER.sequence(DER.objectIdentifier(commonName), DER.utf8String(text))))
  }

  /// RFC 5280, 4.1.2.5: two digits of the year until 2049, four from 2050 on.
  static func time(_ instant: Int) -> [UInt8] {
    var seconds = time_t(instant)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    let year = Int(parts.tm_year) + 1900
    let rest = [parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec]
      .map { twoDigits(Int($0)) }.joined()
    return year < 2050
      ? DER.element(DER.Tag.utcTime, Array((twoDigits(year % 100) + rest + "Z").utf8))
      : DER.element(DER.Tag.generalizedTime, Array((twoDigits(year / 100) + twoDigits(year % 100) + rest + "Z").utf8))
  }

  private static func twoDigits(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }

  static func `extension`(_ identifier: [Int], isCritical: Bool, _ value: [UInt8]) -> [UInt8] {
    isCritical
      ? DER.sequence(DER.objectIdentifier(identifier), DER.boolean(true), DER.octetString(value))
      : DER.sequence(DER.objectIdentifier(identifier), DER.octetString(value))
  }

  /// RFC 7093, method 1: the first 160 bits of the SHA-256 of the key.
  static func keyIdentifier(_ key: P256.Signing.PublicKey) -> [UInt8] {
    Array(SHA256.hash(data: key.x963Representation).prefix(20))
  }

  /// A host as `--host` names it: an address as its bytes, else a DNS name.
  static func alternativeName(_ host: String) -> [UInt8] {
    for (family, size) in [(AF_INET, 4), (AF_INET6, 16)] {
      var bytes = [UInt8](repeating: 0, count: size)
      if inet_pton(family, host, &bytes) == 1 { return DER.element(DER.Tag.implicit(7), bytes) }
    }
    return DER.element(DER.Tag.implicit(2), Array(host.utf8))
  }

  static func pem(certificate: [UInt8]) -> String {
    let text = Data(certificate).base64EncodedString(options: [.lineLength64Characters, .endLineWithLineFeed])
    return "-----BEGIN CERTIFICATE-----\n\(text)\n-----END CERTIFICATE-----\n"
  }
}
