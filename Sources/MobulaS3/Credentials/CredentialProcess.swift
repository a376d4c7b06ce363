internal import Glibc
internal import MobulaCore

/// Splits a `credential_process` into words, as its documentation has it: spaces part them, double quotes (or single
/// ones) keep spaces. Nothing else is special, and no shell sees the line.
///
/// - Returns: `nil` for a quote without its end.
func wordsOfCommand(_ command: String) -> [String]? {
  var words: [String] = []
  var word: String?
  var quote: Character?
  for character in command {
    switch character {
    case quote: quote = nil
    case "\"" where quote == nil, "'" where quote == nil:
      quote = character
      word = word ?? ""
    case " " where quote == nil, "\t" where quote == nil, "\n" where quote == nil:
      if let word { words.append(word) }
      word = nil
    default: word = (word ?? "") + String(character)
    }
  }
  guard quote == nil else { return nil }
  if let word { words.append(word) }
  return words
}

/// Runs the program of a `credential_process` and returns what it prints, at most 64 KiB, within 30 s. Its errors go
/// nowhere, as they may hold secrets.
///
/// - Throws: `MobulaError`: `inputOutput` when it can't be started, `unavailable` when it fails or prints too much,
///   `deadlineExceeded`.
func outputOfCredentialProcess(_ command: [String], deadline: Duration = .seconds(30)) async throws -> [UInt8] {
  try Task.checkCancellation()
  var ends: [CInt] = [-1, -1]
  // A socket pair, as its descriptors are close-on-exec from the start.
  let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
  try systemCall("A pipe to a credential process can't be made") { socketpair(AF_UNIX, type, 0, &ends) }
  let reader = SharedDescriptor(OwnedDescriptor(owning: ends[0]))
  let child: ChildProcess
  do {
    let writer = OwnedDescriptor(owning: ends[1])
    // A session of its own, so that what it started ends with it.
    child = try ChildProcess.spawn(
      command[0], Array(command.dropFirst()), output: .descriptor(writer.rawValue), errors: .null, newSession: true)
  }
  let end = ContinuousClock.now + deadline
  let output: [UInt8]
  do {
    output = try await onThread(named: "credentials") { try readAll(reader, limit: 65_536, until: end) }
  } catch {
    child.signal(SIGKILL, group: true)
    _ = await child.waitForExit()
    throw error
  }
  let timer = Task {
    try await Task.sleep(until: end)
    child.signal(SIGKILL, group: true)
  }
  let exit = await child.waitForExit()
  timer.cancel()
  guard exit.isSuccess else {
    throw MobulaError(
      .unavailable, "The credential process \(command[0]) ended with \(exit): run it by hand to see why.")
  }
  return output
}

private func readAll(
  _ reader: SharedDescriptor, limit: Int, until end: ContinuousClock.Instant
) throws(MobulaError) -> [UInt8] {
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    var event = pollfd(fd: reader.rawValue, events: Int16(POLLIN), revents: 0)
    let left = max(.zero, end - .now) / .milliseconds(1)
    let ready = try systemCall("A credential process can't be waited for") { poll(&event, 1, CInt(left.rounded(.up))) }
    guard ready > 0 else {
      throw MobulaError(.deadlineExceeded, "The credential process did not end in time: run it by hand to see why.")
    }
    let count = try systemCall("A credential process can't be read") { read(reader.rawValue, &buffer, buffer.count) }
    if count == 0 { return bytes }
    bytes += buffer[..<count]
    guard bytes.count <= limit else {
      throw MobulaError(.unavailable, "The credential process prints more than \(limit) bytes: it is to print JSON.")
    }
  }
}
