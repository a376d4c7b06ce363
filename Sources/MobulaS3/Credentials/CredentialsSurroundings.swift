internal import FoundationEssentials
internal import Glibc
internal import MobulaCore

/// What the chain sees of the machine: variables, files, processes, HTTP. Tests put others in their place.
struct CredentialsSurroundings: Sendable {
  var variables: EnvironmentVariables
  /// A file's bytes; `nil` where there is none.
  var readFile: @Sendable (_ path: String) async throws -> [UInt8]?
  /// What a program prints, run with its arguments.
  var run: @Sendable (_ command: [String]) async throws -> [UInt8]
  var http = PlainHTTPClient.shared

  init(
    _ environment: [String: String],
    readFile: @escaping @Sendable (String) async throws -> [UInt8]? = { path in
      try await onThread(named: "credentials") { try readSmallFile(path) }
    },
    run: @escaping @Sendable ([String]) async throws -> [UInt8] = { try await outputOfCredentialProcess($0) }
  ) {
    variables = EnvironmentVariables(environment)
    self.readFile = readFile
    self.run = run
  }

  /// AWS's shared files; a missing one is empty.
  ///
  /// - Throws: `MobulaError` for a file that can't be read or understood.
  func sharedConfig() async throws -> SharedConfig {
    let paths = SharedConfig.paths(variables.all)
    func parsed(_ path: String, _ kind: SharedConfigFile.Kind) async throws -> SharedConfigFile {
      guard let bytes = try await readFile(path) else { return SharedConfigFile() }
      return try SharedConfigFile(parsing: String(decoding: bytes, as: UTF8.self), kind: kind, path: path)
    }
    return SharedConfig(
      config: try await parsed(paths.config, .config), credentials: try await parsed(paths.credentials, .credentials),
      environment: variables.all)
  }

  /// A token in a file that somebody renews, without the spaces and line ends around it.
  func token(in path: String) async throws -> String {
    guard let bytes = try await readFile(path) else {
      throw MobulaError(.notFound, "There is no token file \(path): check its path, and that it is mounted.")
    }
    let isSpace: (UInt8) -> Bool = { [9, 10, 13, 32].contains($0) }
    let trimmed = bytes.drop(while: isSpace).reversed().drop(while: isSpace).reversed()
    guard !trimmed.isEmpty else { throw MobulaError(.invalidArgument, "The token file \(path) is empty: write it.") }
    return String(decoding: trimmed, as: UTF8.self)
  }

  /// Makes a request again after connection failures and 5xx.
  ///
  /// - Parameter giver: begins the sentence of an error.
  /// - Throws: `MobulaError` (`unavailable`, `deadlineExceeded`); `CancellationError`.
  func send(
    _ request: PlainRequest, attempts: Int, within limit: Duration, giver: String
  ) async throws -> PlainAnswer {
    struct ServerError: Error { var answer: PlainAnswer }
    do {
      return try await retrying(
        S3RetryPolicy(maximumAttempts: attempts), isRetryable: { $0 is PlainHTTPFailure || $0 is ServerError }
      ) {
        let answer = try await http.send(request, within: limit)
        if answer.status >= 500 || answer.status == 429 { throw ServerError(answer: answer) }
        return answer
      }
    } catch let error as ServerError {
      return error.answer
    } catch let failure as PlainHTTPFailure {
      throw MobulaError(
        failure == .timedOut ? .deadlineExceeded : .unavailable,
        "\(giver) can't be reached (\(failure.reason)): check that it runs and its address.")
    }
  }
}

/// A whole file of at most 1 MiB; `nil` where there is none.
private func readSmallFile(_ path: String) throws(MobulaError) -> [UInt8]? {
  let limit = 1_048_576
  // Not blocking, so that a pipe in the file's place is no trap.
  let raw = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
  if raw < 0, [ENOENT, ENOTDIR].contains(errno) { return nil }
  guard raw >= 0 else { throw MobulaError.system("\(path) can't be read") }
  let descriptor = OwnedDescriptor(owning: raw)
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65_536)
  while true {
    let count = try systemCall("\(path) can't be read") { read(descriptor.rawValue, &buffer, buffer.count) }
    if count == 0 { return bytes }
    bytes += buffer[..<count]
    guard bytes.count <= limit else {
      throw MobulaError(.invalidArgument, "\(path) has more than \(limit) bytes: name the right file.")
    }
  }
}
