internal import Glibc
import Mobula
public import MobulaCore

/// Measures the line rate between two hosts with a TCP connection of its own.
///
/// The executable runs itself on both hosts: it hands the arguments after
/// `LineRateProbe.argument` to `LineRateProbe.run`.
public enum LineRateProbe {
  /// The first argument of a process that is one end of a probe.
  public static let argument = "bench-probe"
  /// Ignored at the beginning of the measurement, in which buckets fill and windows open.
  static let warmUp = Duration.milliseconds(300)
  static let writeSize = 1 << 20

  /// Sends from one host to another for `duration`, which begins after the warm-up.
  ///
  /// - Parameters:
  ///   - executable: one that hands its arguments to `run`; `nil` for this process's own.
  ///   - arguments: what comes before the probe's own arguments.
  /// - Throws: `MobulaError` (`unavailable`, `deadlineExceeded`) when the two can't reach each other.
  public static func measure(
    from sender: EmulatedHost, to receiver: EmulatedHost, nic: LinkRate?, duration: Duration = .seconds(2),
    executable: String? = nil, arguments: [String] = [LineRateProbe.argument], environment: [String: String]? = nil
  ) async throws -> LineRate {
    let executable = try executable ?? Executable.path()
    let output = try ProcessOutput()
    let server = try receiver.spawn(
      executable, arguments + ["serve", receiver.address], environment: environment, output: output.stream)
    output.started()
    defer { server.signal(SIGKILL) }
    let port = try await answer(of: output, to: "listening", within: .seconds(20))[0]
    let milliseconds = Int((duration + warmUp) / .milliseconds(1))
    let client = try sender.spawn(
      executable, arguments + ["send", receiver.address, "\(port)", "\(milliseconds)"], environment: environment,
      output: .null)
    defer { client.signal(SIGKILL) }
    let result = try await answer(of: output, to: "received", within: duration + .seconds(20))
    guard result[1] > 0 else {
      throw MobulaError(.unavailable, "The probe from \(sender.name) to \(receiver.name) carried nothing in its time.")
    }
    return LineRate(bytesPerSecond: Double(result[0]) * 1e9 / Double(result[1]), nic: nic)
  }

  /// The numbers on the line that begins with `word`.
  private static func answer(of output: ProcessOutput, to word: String, within limit: Duration) async throws -> [Int] {
    let expected = word == "listening" ? 1 : 2
    while let line = try await output.line(within: limit) {
      let words = line.split(separator: " ")
      guard words.first.map(String.init) == word else { continue }
      let numbers = words.dropFirst().compactMap { Int($0) }
      if numbers.count == expected { return numbers }
    }
    throw MobulaError(.unavailable, "The line rate's probe ended without a result: see what it wrote above.")
  }

  /// One end of a probe, blocking: `serve ADDRESS` or `send ADDRESS PORT MILLISECONDS`.
  /// The server says `listening PORT`, and at the end `received BYTES NANOSECONDS`.
  ///
  /// - Returns: the exit status for this process.
  public static func run(_ arguments: [String]) -> Int32 {
    do {
      switch (arguments.first, arguments.count) {
      case ("serve", 2): try serve(address: arguments[1])
      case ("send", 4):
        guard let port = UInt16(arguments[2]), let milliseconds = Int(arguments[3]) else { return 64 }
        try send(to: arguments[1], port: port, duration: .milliseconds(milliseconds))
      default: return 64
      }
      return 0
    } catch {
      let sentence = "mobula: \(error)\n"
      _ = write(STDERR_FILENO, sentence, sentence.utf8.count)
      return 1
    }
  }

  /// Takes one connection and counts what comes after the warm-up.
  static func serve(address: String) throws(MobulaError) {
    let listener = try tcpSocket()
    let raw = listener.rawValue
    var name = try socketAddress(address, port: 0)
    try systemCall("The probe can't listen on \(address)") { withSocketAddress(&name) { bind(raw, $0, $1) } }
    try systemCall("The probe can't listen on \(address)") { listen(raw, 1) }
    try systemCall("The probe's port can't be asked for") {
      withSocketAddress(&name) { address, length in
        var length = length
        return getsockname(raw, address, &length)
      }
    }
    say("listening \(UInt16(bigEndian: name.sin_port))")
    let connection = OwnedDescriptor(owning: try systemCall("The probe can't accept") { accept(raw, nil, nil) })
    let (bytes, time) = try count(connection.rawValue)
    say("received \(bytes) \(Int(time / .nanoseconds(1)))")
  }

  /// Bytes from the first read after the warm-up on, and the time that they took.
  private static func count(_ connection: CInt) throws(MobulaError) -> (Int, Duration) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: writeSize, alignment: pageSize)
    defer { buffer.deallocate() }
    var first: ContinuousClock.Instant?
    var begin: ContinuousClock.Instant?
    var end = ContinuousClock.now
    var bytes = 0
    while true {
      let count = try systemCall("The probe can't receive") { recv(connection, buffer.baseAddress, buffer.count, 0) }
      if count == 0 { break }
      let now = ContinuousClock.now
      if begin != nil {
        bytes += count
        end = now
      } else if let first {
        if now - first >= warmUp { begin = now }
      } else {
        first = now
      }
    }
    guard let begin, bytes > 0 else { return (0, .zero) }
    return (bytes, end - begin)
  }

  /// Writes as fast as the connection takes it, for `duration`.
  static func send(to address: String, port: UInt16, duration: Duration) throws(MobulaError) {
    let connection = try tcpSocket()
    let raw = connection.rawValue
    var name = try socketAddress(address, port: port)
    try systemCall("The probe can't connect to \(address):\(port)") {
      withSocketAddress(&name) { connect(raw, $0, $1) }
    }
    let buffer = [UInt8](repeating: 0x5A, count: writeSize)
    let end = ContinuousClock.now + duration
    while ContinuousClock.now < end {
      try systemCall("The probe can't send") { Glibc.send(raw, buffer, buffer.count, CInt(MSG_NOSIGNAL)) }
    }
  }

  private static func say(_ line: String) {
    print(line)
    fflush(nil)
  }

  private static func tcpSocket() throws(MobulaError) -> OwnedDescriptor {
    let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    return OwnedDescriptor(owning: try systemCall("The probe can't have a socket") { socket(AF_INET, type, 0) })
  }

  private static func socketAddress(_ address: String, port: UInt16) throws(MobulaError) -> sockaddr_in {
    var result = sockaddr_in()
    result.sin_family = sa_family_t(AF_INET)
    result.sin_port = port.bigEndian
    guard inet_pton(AF_INET, address, &result.sin_addr) == 1 else {
      throw MobulaError(.invalidArgument, "\(address) is no IPv4 address.")
    }
    return result
  }

  private static func withSocketAddress(
    _ name: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> CInt
  ) -> CInt {
    withUnsafeMutablePointer(to: &name) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
  }
}
