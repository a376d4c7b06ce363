internal import Glibc

/// What went wrong, in a sentence that says what to do about it.
///
/// Travels over the wire as it is, so that a caller sees the error of the
/// process that met it.
public struct MobulaError: Error, Sendable, Hashable, CustomStringConvertible {
  /// What kind of failure it is. Open: codes may be added, so a `switch` needs a default.
  public struct Code: Hashable, Sendable, CustomStringConvertible {
    private enum Value: String {
      case invalidArgument, notFound, alreadyExists, full, unauthenticated, denied, unavailable, deadlineExceeded,
        cancelled, connectionClosed, protocolViolation, corrupted, inputOutput, workFailed, mismatch, workerLost,
        unschedulable, actorDied, actorUnavailable, unknown
    }
    private let value: Value
    private init(_ value: Value) { self.value = value }

    /// A flag, an address, a file or a value that can't be used as it is.
    public static let invalidArgument = Self(.invalidArgument)
    /// An object, a name, a bucket, a host that does not exist.
    public static let notFound = Self(.notFound)
    /// Something with this name, or in this place, is there already.
    public static let alreadyExists = Self(.alreadyExists)
    /// A store or a pod that has no room.
    public static let full = Self(.full)
    /// No token, or a wrong one.
    public static let unauthenticated = Self(.unauthenticated)
    /// Known, but not allowed.
    public static let denied = Self(.denied)
    /// Nobody there to do it now; trying again later may help.
    public static let unavailable = Self(.unavailable)
    /// It took longer than it was to take.
    public static let deadlineExceeded = Self(.deadlineExceeded)
    /// Whoever asked wants it no more.
    public static let cancelled = Self(.cancelled)
    /// The peer went away before it answered.
    public static let connectionClosed = Self(.connectionClosed)
    /// Bytes that no well-behaved peer sends.
    public static let protocolViolation = Self(.protocolViolation)
    /// Bytes whose checksum is wrong.
    public static let corrupted = Self(.corrupted)
    /// The operating system said no; the message has its reason.
    public static let inputOutput = Self(.inputOutput)
    /// A task or an actor threw; the message is its error.
    public static let workFailed = Self(.workFailed)
    /// Two builds, versions or incarnations that don't fit together.
    public static let mismatch = Self(.mismatch)
    /// The worker of a task has ended, or its host is gone, as often as the task was tried.
    public static let workerLost = Self(.workerLost)
    /// No pod had what a task or an actor needs for as long as it was to wait.
    public static let unschedulable = Self(.unschedulable)
    /// An actor has ended for good, or does before it has begun; `mayHaveRun` says of a call whether it may have been made.
    public static let actorDied = Self(.actorDied)
    /// An actor can't be called just now: it was lost and is started again, or can't be reached.
    public static let actorUnavailable = Self(.actorUnavailable)
    /// A code from a newer peer.
    public static let unknown = Self(.unknown)

    public var description: String { value.rawValue }

    /// The code with this text form; `unknown` for one from a newer peer.
    public init(_ description: String) { value = Value(rawValue: description) ?? .unknown }
  }

  /// What kind of failure it is.
  public var code: Code
  /// One sentence: what was wrong, where, and the remedy.
  public var message: String
  /// The source file that noticed it.
  public var file: String
  /// The line in it.
  public var line: Int
  /// Whether the work that was asked for may have been done, or done in part, although no answer came: the connection
  /// broke, or the time was over, after the request had left. Where it is false the work was not begun, or it failed.
  public var mayHaveRun = false

  /// An error with one sentence that says what to do.
  public init(_ code: Code, _ message: String, file: String = #fileID, line: Int = #line) {
    self.code = code
    self.message = message
    self.file = file
    self.line = line
  }

  /// The message, with what a terminal would act on escaped.
  public var description: String { message.printableLines }

  /// An error of the operating system's, from `errno` unless `number` is given.
  package static func system(
    _ what: String, number: CInt = currentErrno(), file: String = #fileID, line: Int = #line
  ) -> MobulaError {
    MobulaError(.inputOutput, "\(what): \(errnoText(number))\(limit(behind: number)).", file: file, line: line)
  }

  /// The limit of this process that such an error may come from, as the shell calls it.
  private static func limit(behind number: CInt) -> String {
    func clause(_ resource: __rlimit_resource, _ unit: String, _ command: String) -> String? {
      var limit = rlimit()
      guard getrlimit(__rlimit_resource_t(resource.rawValue), &limit) == 0, limit.rlim_cur != .max else { return nil }
      return " (this process may have \(limit.rlim_cur) \(unit): see `\(command)`)"
    }
    switch number {
    case EMFILE: return clause(RLIMIT_NOFILE, "descriptors", "ulimit -n") ?? ""
    case EFBIG: return clause(RLIMIT_FSIZE, "bytes in a file", "ulimit -f") ?? ""
    case ENOMEM:
      return clause(RLIMIT_AS, "bytes of addresses", "ulimit -v") ?? clause(RLIMIT_DATA, "bytes of data", "ulimit -d")
        ?? ""
    default: return ""
    }
  }
}

extension MobulaError: Codable {
  enum CodingKeys: String, CodingKey { case code, message, file, line, mayHaveRun }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    code = Code(try container.decode(String.self, forKey: .code))
    message = try container.decode(String.self, forKey: .message)
    file = try container.decode(String.self, forKey: .file)
    line = try container.decode(Int.self, forKey: .line)
    mayHaveRun = try container.decodeIfPresent(Bool.self, forKey: .mayHaveRun) ?? false
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(code.description, forKey: .code)
    try container.encode(message, forKey: .message)
    try container.encode(file, forKey: .file)
    try container.encode(line, forKey: .line)
    if mayHaveRun { try container.encode(true, forKey: .mayHaveRun) }
  }
}
