internal import FoundationEssentials
internal import Glibc
public import MobulaCore

/// What a certificate says of itself, for people; who signed it is not checked here.
public struct CertificateSummary: Sendable, Hashable {
  /// The common name, or the whole name as hexadecimal digits where there is none.
  public var subject: String
  public var issuer: String
  /// DNS names and addresses.
  public var names: [String] = []
  /// Seconds since 1970.
  public var validity: Range<Int>
  /// Hexadecimal digits.
  public var serial: String
  public var isAuthority = false

  /// As it is in the certificate.
  var subjectBytes: [UInt8]
  var publicKey: [UInt8]

  /// - Throws: `MobulaError`: `inputOutput`, or `invalidArgument` for what is no certificate.
  public init(file: String) throws(MobulaError) { try self.init(pem: try readSmallFile(file)) }

  /// - Throws: `MobulaError` (`invalidArgument`) for what is no certificate.
  public init(pem: String) throws(MobulaError) {
    let lines = pem.split(whereSeparator: \.isNewline)
    guard let start = lines.firstIndex(of: "-----BEGIN CERTIFICATE-----"),
      let end = lines[start...].firstIndex(of: "-----END CERTIFICATE-----"),
      let bytes = Data(base64Encoded: lines[(start + 1)..<end].joined())
    else {
      throw MobulaError(.invalidArgument, "This is no certificate: it must be a file in PEM format.")
    }
    do {
      try self.init(Array(bytes)[...])
    } catch {
      throw MobulaError(.invalidArgument, "This certificate is damaged: make or copy it again.")
    }
  }

  private init(_ bytes: ArraySlice<UInt8>) throws(DERReader.Malformed) {
    var outer = DERReader(bytes)
    var signed = try outer.enter()
    var content = try signed.enter()
    if content.nextTag == DER.Tag.explicit(0) { _ = try content.read() }
    serial = hexadecimal(Array(try content.read(DER.Tag.integer)))
    _ = try content.read(DER.Tag.sequence)
    issuer = try Self.text(of: try content.read(DER.Tag.sequence))
    var times = try content.enter()
    let start = try Self.time(times.read())
    validity = start..<max(start, try Self.time(times.read()))
    let subject = try content.read(DER.Tag.sequence)
    subjectBytes = DER.element(DER.Tag.sequence, Array(subject))
    self.subject = try Self.text(of: subject)
    var keyInformation = try content.enter()
    _ = try keyInformation.read(DER.Tag.sequence)
    publicKey = Array(try keyInformation.read(DER.Tag.bitString).dropFirst())
    while !content.isAtEnd {
      let part = try content.read()
      guard part.tag == DER.Tag.explicit(3) else { continue }
      var wrapper = DERReader(part.content)
      var extensions = try wrapper.enter()
      while !extensions.isAtEnd { try take(extensions.enter()) }
    }
  }

  private mutating func take(_ entry: DERReader) throws(DERReader.Malformed) {
    var entry = entry
    let identifier = DER.element(DER.Tag.objectIdentifier, Array(try entry.read(DER.Tag.objectIdentifier)))
    if entry.nextTag == DER.Tag.boolean { _ = try entry.read() }
    var value = DERReader(try entry.read(DER.Tag.octetString))
    if identifier == DER.objectIdentifier(X509.basicConstraints) {
      var constraints = try value.enter()
      if constraints.nextTag == DER.Tag.boolean { isAuthority = try constraints.read().content.first == 0xFF }
    } else if identifier == DER.objectIdentifier(X509.subjectAlternativeName) {
      var list = try value.enter()
      while !list.isAtEnd {
        let name = try list.read()
        switch (name.tag, name.content.count) {
        case (DER.Tag.implicit(2), _): names.append(String(decoding: name.content, as: UTF8.self))
        case (DER.Tag.implicit(7), 4): names.append(Self.address(AF_INET, name.content))
        case (DER.Tag.implicit(7), 16): names.append(Self.address(AF_INET6, name.content))
        default: break
        }
      }
    }
  }

  private static func address(_ family: CInt, _ bytes: ArraySlice<UInt8>) -> String {
    var text = [CChar](repeating: 0, count: 64)
    let raw = Array(bytes)
    guard inet_ntop(family, raw, &text, socklen_t(text.count)) != nil else { return hexadecimal(raw) }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  private static func text(of name: ArraySlice<UInt8>) throws(DERReader.Malformed) -> String {
    var sets = DERReader(name)
    while !sets.isAtEnd {
      var set = try sets.enter(DER.Tag.set)
      var pair = try set.enter()
      let identifier = DER.element(DER.Tag.objectIdentifier, Array(try pair.read(DER.Tag.objectIdentifier)))
      if identifier == DER.objectIdentifier(X509.commonName) {
        return String(decoding: try pair.read().content, as: UTF8.self)
      }
    }
    return hexadecimal(Array(name))
  }

  private static func time(_ element: (tag: UInt8, content: ArraySlice<UInt8>)) throws(DERReader.Malformed) -> Int {
    let digits = element.content.filter { 0x30...0x39 ~= $0 }.map { Int($0) - 0x30 }
    let long = element.tag == DER.Tag.generalizedTime
    guard digits.count == (long ? 14 : 12) else { throw DERReader.Malformed() }
    let year = digits.prefix(long ? 4 : 2).reduce(0) { $0 * 10 + $1 }
    let rest = Array(digits.dropFirst(long ? 4 : 2))
    var parts = tm()
    // RFC 5280: two digits below 50 are of this century.
    parts.tm_year = CInt(long ? year - 1900 : year < 50 ? year + 100 : year)
    parts.tm_mon = CInt(rest[0] * 10 + rest[1] - 1)
    parts.tm_mday = CInt(rest[2] * 10 + rest[3])
    parts.tm_hour = CInt(rest[4] * 10 + rest[5])
    parts.tm_min = CInt(rest[6] * 10 + rest[7])
    parts.tm_sec = CInt(rest[8] * 10 + rest[9])
    return Int(timegm(&parts))
  }
}
