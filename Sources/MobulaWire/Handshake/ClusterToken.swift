internal import FoundationEssentials
internal import Glibc
public import MobulaCore

/// What a process proves with that it belongs to a cluster, and what it takes as such a proof.
///
/// The cluster's own token is the secret of its heads and hosts, and every right. From it others are made that have
/// fewer (`narrowed`), for pods, drivers, workers, tools and viewers. A token proves itself by challenge and response and
/// never goes over the wire; its description hides it.
public struct ClusterToken: Sendable, CustomStringConvertible, CustomReflectable {
  private enum Source: Sendable {
    case fixed([TokenSecret])
    /// Changes with the file.
    case file(TokenFile)
  }

  private var source: Source
  /// What each of the source's tokens is narrowed by.
  private var narrowing: [TokenClaims] = []
  /// A file with the cluster token, for peers of the previous wire version, which know no other.
  private var elderFile: String?

  /// Characters that a token may have: fewer could be guessed from an overheard proof.
  public static let lengths = 16...1024

  /// Takes the text of a token, or of two on a line each, without the spaces and line ends around it.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) unless it is 16 to 1024 visible ASCII characters.
  public init(_ text: String) throws(MobulaError) {
    guard let secrets = TokenFile.secrets(in: text) else {
      throw MobulaError(
        .invalidArgument,
        "This is not a cluster token: use the one that `mobula start --head` wrote (16 to 1024 visible ASCII characters)."
      )
    }
    self.init(.fixed(secrets))
  }

  private init(_ source: Source) { self.source = source }

  /// A new token of a cluster: 256 bits from the system's random numbers, as 64 hexadecimal digits.
  public static func random() -> Self { Self(.fixed([TokenSecret(cluster: hexadecimal(randomBytes(32)))])) }

  /// Reads a token from a file, such as `mobula start --head` wrote.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when the file can't be read, `invalidArgument` when it holds no token.
  public static func read(file: String) throws(MobulaError) -> Self { Self(.fixed(try TokenFile.read(file))) }

  /// As `read`, and from then on what is in the file: it is looked at for each connection.
  ///
  /// - Parameter copies: other files, which get what this one is given.
  public static func following(_ file: String, copies: [String] = []) throws(MobulaError) -> Self {
    Self(.file(try TokenFile(file, copies: copies)))
  }

  /// Writes the token to a new file that only this user may read (mode 0600).
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when the file is there, which stays as it is; else `inputOutput`.
  public func write(file: String) throws(MobulaError) {
    try TokenFile.write(secrets, to: file, replaces: false)
  }

  // MARK: Rights

  /// A token that was made from this one, with fewer rights.
  ///
  /// - Throws: `MobulaError`: `denied` where this one has not those rights itself, `invalidArgument` for claims that are
  ///   too long.
  public func narrowed(_ claims: TokenClaims) throws(MobulaError) -> Self {
    var new = self
    new.narrowing.append(claims)
    for secret in secrets { _ = try secret.narrowed(claims) }
    return new
  }

  /// The token that the workers of a job have, and its driver to call them.
  ///
  /// It is made from a pod's, so that pods can make it as well.
  public func ofJob(_ job: JobID) throws(MobulaError) -> Self {
    let isPods = claims.last?.role == .pod
    return try (isPods ? self : narrowed(TokenClaims(role: .pod))).narrowed(TokenClaims(role: .worker, job: job))
  }

  /// This one, that shows peers of the previous wire version the cluster token in a file instead, if it is there. The
  /// file is read for those alone.
  public func withElder(_ file: String) -> Self {
    var new = self
    new.elderFile = file
    return new
  }

  /// The cluster token that this one shows peers of the previous wire version; `nil` without.
  package var elder: Self? {
    let known = elders
    return known.isEmpty ? nil : Self(.fixed(known))
  }

  /// The steps from the cluster token to this one; none for the cluster token itself.
  public var claims: [TokenClaims] { secrets.first?.claims ?? [] }

  /// This one alone, as it is now, where another is taken as well.
  package var newest: Self { Self(.fixed(Array(secrets.prefix(1)))) }

  /// Each that is taken, the newest first.
  package var each: [Self] { secrets.map { Self(.fixed([$0])) } }

  /// What it allows.
  ///
  /// - Throws: `MobulaError` (`denied`) for a text whose claims contradict each other.
  public func authority() throws(MobulaError) -> Authority { try Authority(claims) }

  /// The text, for files and for programs that are started with it.
  public var text: String { secrets.map(\.text).joined(separator: "\n") }

  private var sources: [TokenSecret] {
    switch source {
    case .fixed(let secrets): secrets
    case .file(let file): file.secrets
    }
  }

  /// The first is the one to use.
  var secrets: [TokenSecret] {
    let own = sources
    guard !narrowing.isEmpty else { return own }
    // Whether they can be narrowed so was found out before; one that a file has got since and that can't is no token.
    return own.compactMap { secret in
      var narrow = secret
      for claims in narrowing {
        guard let next = try? narrow.narrowed(claims) else { return nil }
        narrow = next
      }
      return narrow
    }
  }

  /// The cluster tokens among those that this one is, or was made from here.
  var clusterTokens: [TokenSecret] { sources.filter(\.isClusterToken) }

  /// The cluster tokens that this process can come by, for peers that know no others.
  var elders: [TokenSecret] {
    let known = clusterTokens
    guard known.isEmpty, let elderFile else { return known }
    return ((try? TokenFile.read(elderFile)) ?? []).filter(\.isClusterToken)
  }

  // MARK: Rotation

  /// A cluster token beside this one: that is used from now on, and this one taken as well until `finishingRotation`.
  ///
  /// - Throws: `MobulaError`: `denied` unless this is the cluster token, `alreadyExists` when it has been rotated and not
  ///   finished.
  package func rotated() throws(MobulaError) -> Self {
    let secrets = secrets
    guard let old = secrets.first, old.isClusterToken else {
      throw MobulaError(.denied, "Only the cluster token can be rotated: this one was made from it, for less.")
    }
    guard secrets.count < TokenFile.maximumTokens else {
      throw MobulaError(
        .alreadyExists,
        "Two tokens are valid already: `mobula token rotate --finish` drops the older one, then it can be rotated again."
      )
    }
    var new = TokenSecret(cluster: hexadecimal(randomBytes(32)))
    while new.hint == old.hint { new = TokenSecret(cluster: hexadecimal(randomBytes(32))) }
    return Self(.fixed([new, old]))
  }

  /// The newest alone.
  package func finishingRotation() throws(MobulaError) -> Self {
    let secrets = secrets
    guard secrets.count > 1 else {
      throw MobulaError(.notFound, "One token is valid, and none to be dropped: `mobula token rotate` makes another.")
    }
    return Self(.fixed([secrets[0]]))
  }

  /// Whether two tokens are valid.
  package var isRotating: Bool { secrets.count > 1 }

  /// Puts other tokens into the file that this one follows: every process that follows it uses them for its next
  /// connection.
  ///
  /// - Throws: `MobulaError`: `invalidArgument` for what are no cluster tokens, `denied` when none of them is valid here
  ///   now, `inputOutput` when they can't be written.
  func replace(with text: String) throws(MobulaError) {
    guard case .file(let file) = source, narrowing.isEmpty else {
      throw MobulaError(.invalidArgument, "This process has its token from no file: start it with the new one.")
    }
    guard let new = TokenFile.secrets(in: text), new.allSatisfy(\.isClusterToken) else {
      throw MobulaError(.invalidArgument, "What came in the place of the cluster token is none: rotate it again.")
    }
    guard new.contains(where: { file.secrets.contains($0) }) else {
      throw MobulaError(
        .denied, "None of the tokens that came is valid here: copy the file `token` of the head's machine to this one.")
    }
    if new != file.secrets { try file.replace(new) }
  }

  // MARK: Proofs

  public var description: String { "a cluster token" }

  /// Without children, so that `dump` and debuggers print no secret either.
  public var customMirror: Mirror { Mirror(self, children: [] as [Mirror.Child]) }

  /// HMAC-SHA256 (RFC 2104) of `parts`, one after the other, under this token.
  func proof(over parts: [[UInt8]]) -> [UInt8] { TokenSecret.code(secrets.first?.key ?? [], parts) }
}

/// `count` bytes from the system's random numbers.
func randomBytes(_ count: Int) -> [UInt8] {
  var generator = SystemRandomNumberGenerator()
  return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
}

/// Compares without stopping at the first difference, so that the time taken tells nothing about where it is.
func constantTimeEqual(_ a: [UInt8], _ b: [UInt8]) -> Bool {
  guard a.count == b.count else { return false }
  var difference: UInt8 = 0
  for index in a.indices { difference |= a[index] ^ b[index] }
  return difference == 0
}

/// An instant for people, as `2026-11-30T04:00:00Z`.
///
/// - Parameter seconds: since 1970; kept within the years that have four digits.
package func utcText(_ seconds: Int64) -> String {
  Date(timeIntervalSince1970: Double(min(max(seconds, 0), 253_402_300_799))).formatted(.iso8601)
}
