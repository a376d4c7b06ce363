internal import CMobula
public import MobulaCore

/// What the code of a task or of an actor threw, and where.
///
/// `ObjectRef.value` throws it for whatever a task threw; a call of an actor for what is not `Codable`, since it throws
/// everything else as it was.
public struct WorkError: Error, Sendable, Codable, CustomStringConvertible {
  /// The error's type, as people write it.
  public let type: String
  /// What the error says of itself; at most 16 KB of it.
  public let message: String
  /// The task or the function that threw it.
  public let work: String
  /// The name of the host that it ran on.
  public let host: String
  /// The name of the pod that it ran in.
  public let pod: String
  /// The process that it ran in.
  public let worker: WorkerID
  /// Which attempt it was, from 1; always 1 for calls of actors.
  public let attempt: Int
  /// The last lines that its worker had written by then, of whichever work.
  public let log: String
  /// The type's mangled name and the error's own bytes, where it is `Codable`.
  private let name: String?
  private let encoded: ByteString?

  private enum CodingKeys: String, CodingKey {
    case type, message, work, host, pod, worker, attempt, log, name, encoded
  }

  /// What is longer is no message for people, and must not keep an error from arriving.
  private static let longestMessage = 16_384
  private static let largestError = 1_000_000

  init(_ error: any Error, of work: String, in place: WorkPlace, attempt: Int) {
    type = "\(Swift.type(of: error))"
    let text = "\(error)"
    message = text.utf8.count <= Self.longestMessage ? text : String(text.prefix(Self.longestMessage / 4)) + "…"
    self.work = work
    host = place.host
    pod = place.pod
    worker = place.worker
    self.attempt = attempt
    log = place.log()
    guard let codable = error as? any Error & Codable,
      let mangled = _mangledTypeName(Swift.type(of: codable)),
      let bytes = try? ArgumentCoding.encode(codable).bytes, bytes.bytes.count <= Self.largestError
    else {
      (name, encoded) = (nil, nil)
      return
    }
    (name, encoded) = (mangled, bytes)
  }

  /// The error as it was thrown, if it was of this type; or what that one came from, where a task failed since another
  /// one did.
  public func cause<Failure: Error & Codable>(as type: Failure.Type) -> Failure? {
    if let error = decoded() as? Failure { return error }
    guard let inner = decoded() as? WorkError else { return nil }
    return inner.cause(as: type)
  }

  /// The error as it was thrown, if it is `Codable` and its type is in this program.
  func decoded() -> (any Error)? {
    guard let name, let encoded, let type = _typeByName(name) as? any (Error & Codable).Type else { return nil }
    return try? Self.decode(type, encoded)
  }

  private static func decode<Failure: Error & Codable>(_ type: Failure.Type, _ bytes: ByteString) throws -> any Error {
    try CBORDecoder().decode(type, from: bytes.bytes)
  }

  /// One sentence, with what a terminal would act on escaped; without the log.
  public var description: String {
    let again = attempt > 1 ? ", attempt \(attempt)" : ""
    return "\(work) failed on pod \(pod) of host \(host)\(again): \(message)".printableLines
  }
}

/// Where work runs, for its errors.
struct WorkPlace: Sendable {
  var host: String
  var pod: String
  var worker: WorkerID

  /// The last lines of what this process has written, if that goes to a file, as it does for workers.
  func log() -> String {
    _ = mobula_flush_output()
    let all = endOfFile("/proc/self/fd/1", bytes: 16_384).split(separator: "\n", omittingEmptySubsequences: true)
    return all.suffix(20).map { String($0.prefix(300)).printable }.joined(separator: "\n")
  }
}

/// The error that an object holds in a value's place.
struct StoredFailure: Decodable {
  let error: any Error

  private enum CodingKeys: String, CodingKey { case code }

  init(from decoder: any Decoder) throws {
    let isSystems = try decoder.container(keyedBy: CodingKeys.self).contains(.code)
    error = isSystems ? try MobulaError(from: decoder) : try WorkError(from: decoder)
  }

  static func of(_ object: InlineObject) -> (any Error)? {
    guard let layout = try? ValueLayout(reading: object.bytes), layout.isError else { return nil }
    let header = UnsafeRawBufferPointer(rebasing: object.bytes[layout.header])
    return withExtendedLifetime(object) { try? CBORDecoder().decode(StoredFailure.self, from: header).error }
  }
}
