internal import Crypto
internal import FoundationEssentials
internal import Glibc
public import MobulaCore

/// The secret that everybody in a cluster shares. It proves itself by
/// challenge and response and never goes over the wire; its description hides it.
public struct ClusterToken: Sendable, CustomStringConvertible, CustomReflectable {
  private let text: String

  /// Characters that a token may have: fewer could be guessed from an overheard proof.
  public static let lengths = 16...1024

  /// Takes `text` without the spaces and line ends around it.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) unless it is 16 to 1024 visible ASCII characters.
  public init(_ text: String) throws(MobulaError) {
    let trimmed = text.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed()
    self.text = String(trimmed)
    guard Self.lengths.contains(self.text.utf8.count), self.text.utf8.allSatisfy({ 0x21...0x7E ~= $0 }) else {
      throw MobulaError(
        .invalidArgument,
        "This is not a cluster token: use the one that `mobula start --head` wrote (16 to 1024 visible ASCII characters)."
      )
    }
  }

  private init(unchecked text: String) { self.text = text }

  /// A new token: 256 bits from the system's random numbers, as 64 hexadecimal digits.
  public static func random() -> Self { Self(unchecked: hexadecimal(randomBytes(32))) }

  /// Reads a token from a file, such as `mobula start --head` wrote.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when the file can't be read, `invalidArgument` when it holds no token.
  public static func read(file: String) throws(MobulaError) -> Self {
    // Of a longer file, which is none, no more than shows that.
    let bytes: [UInt8]
    do {
      bytes = try readSmallFile(
        file, "The cluster token can't be read from \(file)", limit: lengths.upperBound + 2)
    } catch  where error.code == .invalidArgument { bytes = [] }
    do {
      return try Self(String(decoding: bytes, as: UTF8.self))
    } catch {
      throw MobulaError(
        .invalidArgument,
        "\(file) holds no cluster token: use the file that `mobula start --head` wrote (--token-file).")
    }
  }

  /// Writes the token to a new file that only this user may read (mode 0600).
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when the file is there, which stays as it is; else `inputOutput`.
  public func write(file: String) throws(MobulaError) {
    let what = "The cluster token can't be written to \(file)"
    let raw = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    let number = currentErrno()
    if raw == -1, number == EEXIST {
      throw MobulaError(
        .alreadyExists, "\(file) is there already and a new token does not replace it: remove it, or name another file."
      )
    }
    guard raw != -1 else { throw MobulaError.system(what, number: number) }
    let descriptor = OwnedDescriptor(owning: raw)
    do {
      // The umask may have taken bits from the mode, but it can't have added any.
      try systemCall(what) { fchmod(descriptor.rawValue, 0o600) }
      let line = Array("\(text)\n".utf8)
      var written = 0
      while written < line.count {
        written += try systemCall(what) {
          line.withUnsafeBytes { Glibc.write(descriptor.rawValue, $0.baseAddress! + written, $0.count - written) }
        }
      }
    } catch {
      unlink(file)
      throw error
    }
  }

  public var description: String { "a cluster token" }

  /// Without children, so that `dump` and debuggers print no secret either.
  public var customMirror: Mirror { Mirror(self, children: [] as [Mirror.Child]) }

  /// HMAC-SHA256 (RFC 2104) of `parts`, one after the other, under this token.
  func proof(over parts: [[UInt8]]) -> [UInt8] {
    var code = HMAC<SHA256>(key: SymmetricKey(data: Array(text.utf8)))
    for part in parts { code.update(data: part) }
    return Array(code.finalize())
  }
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
