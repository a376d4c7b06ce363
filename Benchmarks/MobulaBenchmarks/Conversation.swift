import Glibc
import MobulaCore
import MobulaStore

/// One line of what processes say to each other: a word, and what belongs to it.
struct Line {
  let word: String
  let rest: String

  init(_ text: String) {
    let parts = text.split(separator: " ", maxSplits: 1)
    word = parts.first.map(String.init) ?? ""
    rest = parts.count > 1 ? String(parts[1]) : ""
  }
}

/// A process of this executable in another role.
final class Child {
  private let process: ChildProcess
  private let socket: SharedDescriptor
  private let host: BenchStore?
  private var received: [UInt8] = []

  /// Starts it, with a ticket for the store if there is one.
  init(_ role: Role, _ host: BenchStore? = nil, _ arguments: [any CustomStringConvertible] = []) throws {
    var ends: [CInt] = [0, 0]
    let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
    try systemCall("A socket can't be made") { socketpair(AF_UNIX, kind, 0, &ends) }
    let theirs = OwnedDescriptor(owning: ends[1])
    socket = SharedDescriptor(OwnedDescriptor(owning: ends[0]))
    self.host = host
    let raw = theirs.rawValue
    process = try ChildProcess.spawn(
      "/proc/self/exe", [Role.marker, role.rawValue] + arguments.map { "\($0)" }, input: .descriptor(raw),
      output: .descriptor(raw))
    _ = consume theirs
    if let host { say("attach \(try encoded(host.store.ticket())) \(host.store.configuration.socket)") }
  }

  deinit { process.signal(SIGKILL) }

  func say(_ line: String) {
    var bytes = Array((line + "\n").utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes {
        send(socket.rawValue, $0.baseAddress!, $0.count, CInt(MSG_NOSIGNAL))
      }
      if count <= 0 { return }
      bytes = bytes.dropFirst(count)
    }
  }

  /// Its next line that is not a wish, which are granted on the way; `nil` at its end.
  func hear() -> Line? {
    while true {
      if let end = received.firstIndex(of: 10) {
        let line = Line(String(decoding: received[..<end], as: UTF8.self))
        received.removeFirst(end + 1)
        guard line.word == "delete", let number = UInt64(line.rest) else { return line }
        host?.store.delete(.number(number))
        say("done")
        continue
      }
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = buffer.withUnsafeMutableBytes { read(socket.rawValue, $0.baseAddress!, $0.count) }
      if count <= 0 { return nil }
      received += buffer[..<count]
    }
  }

  /// - Throws: `MobulaError` when it says something else, or ends.
  @discardableResult
  func expect(_ word: String) throws -> String {
    guard let line = hear() else {
      throw MobulaError(.connectionClosed, "A process of the benchmark ended (\(try end())) before \"\(word)\".")
    }
    if line.word == "skip" { throw Skipped(reason: line.rest) }
    guard line.word == word else {
      throw MobulaError(
        .protocolViolation, "A process of the benchmark said \"\(line.word) \(line.rest)\", not \"\(word)\".")
    }
    return line.rest
  }

  var number: Int32 { process.pid }

  /// Waits for its end.
  ///
  /// - Throws: `MobulaError` (`deadlineExceeded`) after a minute.
  func end() throws -> ChildProcess.Exit {
    for _ in 0..<60_000 {
      if let exit = process.exit { return exit }
      usleep(1000)
    }
    throw MobulaError(.deadlineExceeded, "Process \(process.pid) of the benchmark did not end: look what it does.")
  }
}

/// Why something can't be measured here.
struct Skipped: Error {
  let reason: String
}

/// The other end: what a process in a role says to the one that started it.
struct Parent {
  /// - Throws: `MobulaError` (`connectionClosed`) when the parent is gone.
  func hear() throws -> Line {
    guard let line = readLine() else { throw MobulaError(.connectionClosed, "The benchmark is gone.") }
    return Line(line)
  }

  func say(_ line: String) {
    var bytes = Array((line + "\n").utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { write(1, $0.baseAddress!, $0.count) }
      if count <= 0 { _exit(1) }
      bytes = bytes.dropFirst(count)
    }
  }

  func attach() throws -> StoreClient {
    let line = try hear()
    let parts = line.rest.split(separator: " ", maxSplits: 1)
    guard line.word == "attach", parts.count == 2 else {
      throw MobulaError(.protocolViolation, "No ticket came.")
    }
    return try StoreClient(
      socket: String(parts[1]), ticket: decoded(DescriptorTicket.self, String(parts[0])), name: "benchmark")
  }

  /// Has the store's process delete an object.
  func delete(_ number: UInt64) throws {
    say("delete \(number)")
    _ = try hear()
  }
}

extension ObjectID {
  static func number(_ number: UInt64) -> ObjectID { ObjectID(high: 1 << 32, low: number &* 0x9E37_79B9_7F4A_7C15) }
}
