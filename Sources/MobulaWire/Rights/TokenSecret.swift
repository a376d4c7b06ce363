internal import Crypto
internal import MobulaCore

/// A token's key, and the claims that led to it.
///
/// The key of the cluster token is its text. That of a derived token is HMAC-SHA256 under the key that it was made from,
/// over its claims as they are sent: who has a token can make narrower ones, and nobody can go back. Whoever has a key
/// further up finds the same key from the claims alone, so that no server keeps a list.
struct TokenSecret: Sendable, Hashable {
  /// Claims on the way from the cluster token, and their bytes in all.
  static let maximumLinks = 4
  static let maximumClaims = 320
  /// What a derived token's text begins with.
  static let mark = "mobula1."
  /// As long as the labels of proofs, and none of them, so that no proof is a key.
  private static let label = Array("mobula narrow".utf8)
  private static let hintLabel = Array("mobula key id".utf8)

  var key: [UInt8]
  /// The claims, each as the bytes that its key was made from.
  var links: [[UInt8]]
  /// The same, read.
  var claims: [TokenClaims]

  init(cluster text: String) { (key, links, claims) = (Array(text.utf8), [], []) }

  var isClusterToken: Bool { links.isEmpty }

  /// A token with fewer rights.
  ///
  /// - Throws: `MobulaError`: `denied` where it would have more, `invalidArgument` where it would be too long.
  func narrowed(_ claims: TokenClaims) throws(MobulaError) -> TokenSecret {
    var new = self
    new.claims.append(claims)
    _ = try Authority(new.claims)
    new.links.append(Handshake.encode(claims))
    guard Self.areBounded(new.links), (claims.name?.utf8.count ?? 0) <= TokenClaims.longestName else {
      throw MobulaError(
        .invalidArgument,
        "A token can be narrowed \(Self.maximumLinks) times, and its name has at most \(TokenClaims.longestName) bytes: make it from the cluster token, or with a shorter name."
      )
    }
    new.key = Self.code(key, [Self.label, new.links.last!])
    return new
  }

  static func areBounded(_ links: [[UInt8]]) -> Bool {
    links.count <= maximumLinks && links.reduce(0) { $0 + $1.count } <= maximumClaims
  }

  /// The key of a token that was made from this one; `nil` when it was not.
  func key(for links: [[UInt8]]) -> [UInt8]? {
    guard links.starts(with: self.links) else { return nil }
    return links.dropFirst(self.links.count).reduce(key) { key, link in Self.code(key, [Self.label, link]) }
  }

  /// What the claims of a peer allow it.
  ///
  /// - Throws: `MobulaError` (`denied`) for claims that this build does not know, or that contradict each other.
  static func authority(of links: [[UInt8]]) throws(MobulaError) -> Authority {
    var claims: [TokenClaims] = []
    for link in links {
      guard let one = try? CBORDecoder().decode(TokenClaims.self, from: link) else {
        throw MobulaError(
          .denied, "The token has claims that this build does not know: make it with the oldest build of the cluster.")
      }
      claims.append(one)
    }
    return try Authority(claims)
  }

  /// Two bytes that tell two tokens of a cluster apart, and nothing of use to who knows neither.
  var hint: [UInt8] { Array(Self.code(key, [Self.hintLabel]).prefix(2)) }

  // MARK: Text

  var text: String {
    if isClusterToken { return String(decoding: key, as: UTF8.self) }
    return Self.mark + hexadecimal(Handshake.encode(links.map { ByteString($0) })) + "." + hexadecimal(key)
  }

  /// Reads a token's text; `nil` for what is none.
  init?(_ text: String) {
    guard ClusterToken.lengths.contains(text.utf8.count), text.utf8.allSatisfy({ 0x21...0x7E ~= $0 }) else {
      return nil
    }
    guard text.hasPrefix(Self.mark) else {
      (key, links, claims) = (Array(text.utf8), [], [])
      return
    }
    let parts = text.dropFirst(Self.mark.count).split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 2, let encoded = bytes(ofHexadecimal: parts[0]), let key = bytes(ofHexadecimal: parts[1]),
      key.count == SHA256.byteCount, let read = try? CBORDecoder().decode([ByteString].self, from: encoded)
    else { return nil }
    let links = read.map(\.bytes)
    guard !links.isEmpty, Self.areBounded(links) else { return nil }
    var claims: [TokenClaims] = []
    for link in links {
      guard let one = try? CBORDecoder().decode(TokenClaims.self, from: link) else { return nil }
      claims.append(one)
    }
    (self.key, self.links, self.claims) = (key, links, claims)
  }

  // MARK: Codes

  /// HMAC-SHA256 (RFC 2104) of `parts`, one after the other.
  static func code(_ key: [UInt8], _ parts: [[UInt8]]) -> [UInt8] {
    var code = HMAC<SHA256>(key: SymmetricKey(data: key))
    for part in parts { code.update(data: part) }
    return Array(code.finalize())
  }
}

/// The bytes that pairs of hexadecimal digits are; `nil` for anything else.
private func bytes(ofHexadecimal text: Substring) -> [UInt8]? {
  let digits = Array(text.utf8)
  guard digits.count.isMultiple(of: 2) else { return nil }
  func value(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    default: nil
    }
  }
  var bytes: [UInt8] = []
  for index in stride(from: 0, to: digits.count, by: 2) {
    guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
    bytes.append(high << 4 | low)
  }
  return bytes
}
