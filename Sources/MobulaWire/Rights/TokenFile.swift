internal import Glibc
internal import MobulaCore
internal import Synchronization

/// A file with a cluster's tokens, read again whenever it has changed: one a line, the first is the one to use, and the
/// others are taken as well.
final class TokenFile: Sendable {
  /// Tokens that may be valid at the same time: one, and the one that takes its place.
  static let maximumTokens = 2

  private struct State {
    var stamp: FileStamp?
    var secrets: [TokenSecret]
  }

  let path: String
  /// Others that are written along.
  private let copies: [String]
  private let state: Mutex<State>

  /// - Throws: `MobulaError`: `inputOutput` when the file can't be read, `invalidArgument` when it holds no token.
  init(_ path: String, copies: [String] = []) throws(MobulaError) {
    self.path = path
    self.copies = copies
    // Before it is read, so that what is written meanwhile is read again.
    let stamp = try? FileStamp(of: path)
    state = Mutex(State(stamp: stamp, secrets: try Self.read(path)))
  }

  /// The tokens in the file now; those that were there before while it can't be read, or is just being replaced.
  var secrets: [TokenSecret] {
    guard let stamp = try? FileStamp(of: path) else { return state.withLock { $0.secrets } }
    if let known = state.withLock({ $0.stamp == stamp ? $0.secrets : nil }) { return known }
    guard let secrets = try? Self.read(path) else { return state.withLock { $0.secrets } }
    return state.withLock { state in
      (state.stamp, state.secrets) = (stamp, secrets)
      return secrets
    }
  }

  /// Puts other tokens into the file and its copies, each as a whole.
  func replace(_ secrets: [TokenSecret]) throws(MobulaError) {
    for path in [path] + copies { try Self.write(secrets, to: path, replaces: true) }
  }

  static func read(_ file: String) throws(MobulaError) -> [TokenSecret] {
    // Of a longer file, which is none, no more than shows that.
    let bytes: [UInt8]
    do {
      bytes = try readSmallFile(
        file, "The cluster token can't be read from \(file)",
        limit: maximumTokens * (ClusterToken.lengths.upperBound + 2))
    } catch  where error.code == .invalidArgument { bytes = [] }
    guard let secrets = secrets(in: String(decoding: bytes, as: UTF8.self)) else {
      throw MobulaError(
        .invalidArgument,
        "\(file) holds no cluster token: use the file that `mobula start --head` wrote (--token-file).")
    }
    return secrets
  }

  /// `nil` where a line is none, or there is none, or too many.
  static func secrets(in text: String) -> [TokenSecret]? {
    let lines = text.split { $0.isNewline }
      .map { String($0.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed()) }
      .filter { !$0.isEmpty }
    let secrets = lines.compactMap { TokenSecret($0) }
    return 1...maximumTokens ~= secrets.count && secrets.count == lines.count ? secrets : nil
  }

  /// Writes a file that only this user may read (mode 0600).
  ///
  /// - Parameter replaces: whether it takes the place of one that is there, as a whole.
  /// - Throws: `MobulaError`: `alreadyExists` when the file is there, which stays as it is; else `inputOutput`.
  static func write(_ secrets: [TokenSecret], to file: String, replaces: Bool) throws(MobulaError) {
    let what = "The cluster token can't be written to \(file)"
    let target = replaces ? "\(file).\(getpid()).new" : file
    if replaces { unlink(target) }
    let raw = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
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
      let lines = Array(secrets.map { $0.text + "\n" }.joined().utf8)
      var written = 0
      while written < lines.count {
        written += try systemCall(what) {
          lines.withUnsafeBytes { Glibc.write(descriptor.rawValue, $0.baseAddress! + written, $0.count - written) }
        }
      }
      if replaces {
        try systemCall(what) { fsync(descriptor.rawValue) }
        try systemCall(what) { rename(target, file) }
      }
    } catch {
      unlink(target)
      throw error
    }
  }
}
