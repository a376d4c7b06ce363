internal import Glibc
public import MobulaCore
internal import Synchronization

/// What a process writes, read by this one: line by line, or all of it.
///
/// Give `stream` to the process as its output, its errors or both, and call
/// `started()` then; the end of the output is seen when the last writer is gone.
public final class ProcessOutput: Sendable {
  private let reader: SharedDescriptor
  private let writer: Mutex<SharedDescriptor?>
  private let received = Mutex<[UInt8]>([])

  /// - Throws: `MobulaError` (`inputOutput`) when the process has no descriptors left.
  public init() throws(MobulaError) {
    let (reader, writer) = try socketPair()
    self.reader = reader
    self.writer = Mutex(writer)
  }

  /// The end to write to.
  package var stream: ChildProcess.Stream {
    guard let writer = writer.withLock({ $0 }) else { preconditionFailure("stream was given away before started()") }
    return .descriptor(writer.rawValue)
  }

  /// The process has its copy of `stream`: this process's own copy is closed.
  public func started() { writer.withLock { $0 = nil } }

  /// The next line without its end; `nil` when the output has ended.
  ///
  /// - Throws: `MobulaError` (`deadlineExceeded`) when no line comes within `limit`.
  public func line(within limit: Duration) async throws -> String? {
    let deadline = ContinuousClock.now + limit
    return try await onThread(named: "output") { [self] in
      while true {
        if let line = takeLine() { return line }
        if try !receive(until: deadline) { return takeAll() }
      }
    }
  }

  /// Everything up to the end of the output that `line` hasn't returned.
  ///
  /// - Throws: `MobulaError` (`deadlineExceeded`) when the output hasn't ended within `limit`.
  public func text(within limit: Duration) async throws -> String {
    let deadline = ContinuousClock.now + limit
    return try await onThread(named: "output") { [self] in
      while try receive(until: deadline) {}
      return takeAll() ?? ""
    }
  }

  private func takeLine() -> String? {
    received.withLock { received in
      guard let end = received.firstIndex(of: 10) else { return nil }
      defer { received.removeSubrange(...end) }
      return String(decoding: received[..<end], as: UTF8.self)
    }
  }

  private func takeAll() -> String? {
    received.withLock { received in
      defer { received = [] }
      return received.isEmpty ? nil : String(decoding: received, as: UTF8.self)
    }
  }

  /// Waits for more; false at the end of the output.
  private func receive(until deadline: ContinuousClock.Instant) throws(MobulaError) -> Bool {
    var event = pollfd(fd: reader.rawValue, events: Int16(POLLIN), revents: 0)
    let left = max(.zero, deadline - .now)
    let milliseconds = Int32(
      clamping: left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000)
    let ready = try systemCall("A process's output can't be waited for") { poll(&event, 1, milliseconds) }
    guard ready > 0 else { throw MobulaError(.deadlineExceeded, "A process said nothing within its time.") }
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = try systemCall("A process's output can't be read") { read(reader.rawValue, &buffer, buffer.count) }
    if count > 0 { received.withLock { $0 += buffer[..<count] } }
    return count > 0
  }
}

/// Two connected sockets, close-on-exec from the start: no process started meanwhile keeps one open.
func socketPair() throws(MobulaError) -> (SharedDescriptor, SharedDescriptor) {
  var ends: [CInt] = [-1, -1]
  let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
  try systemCall("A pipe to a process can't be made") { socketpair(AF_UNIX, type, 0, &ends) }
  return (SharedDescriptor(OwnedDescriptor(owning: ends[0])), SharedDescriptor(OwnedDescriptor(owning: ends[1])))
}
