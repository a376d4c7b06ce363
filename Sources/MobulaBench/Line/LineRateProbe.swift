internal import FoundationEssentials
internal import Glibc
import Mobula
public import MobulaCore

/// Measures the line rate between two hosts with TCP connections of its own.
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
    let milliseconds = Int((duration + warmUp) / .milliseconds(1))
    let rate = try await run(
      ["serve", receiver.address], and: ["send", receiver.address], ["\(milliseconds)"], from: sender, to: receiver,
      within: duration + .seconds(20), executable: executable, arguments: arguments, environment: environment)
    return LineRate(bytesPerSecond: rate, nic: nic)
  }

  /// Moves `bytes` by a plain loop of `sendfile` into one of `recv` with no protocol and no checksums, out of and into
  /// memory that is mapped and touched: what unshaped hosts are measured against.
  ///
  /// - Returns: the median of five rounds, after one to warm up.
  /// - Throws: as `measure`.
  public static func measurePlainLoop(
    from sender: EmulatedHost, to receiver: EmulatedHost, bytes: Int, connections: Int,
    executable: String? = nil, arguments: [String] = [LineRateProbe.argument], environment: [String: String]? = nil
  ) async throws -> LineRate {
    let rate = try await run(
      ["serve-plain", receiver.address, "\(bytes)", "\(connections)"], and: ["send-plain", receiver.address],
      ["\(bytes)", "\(connections)"], from: sender, to: receiver, within: .seconds(120), executable: executable,
      arguments: arguments, environment: environment)
    return LineRate(bytesPerSecond: rate, nic: nil)
  }

  /// What iperf3 carries in two seconds, to compare with.
  ///
  /// - Returns: `nil` where it isn't installed, or fails.
  public static func measureWithIperf3(
    from sender: EmulatedHost, to receiver: EmulatedHost, connections: Int
  ) async throws(CancellationError) -> LineRate? {
    guard let iperf3 = SystemTool.find("iperf3") else { return nil }
    do {
      return try await measure(with: iperf3, from: sender, to: receiver, connections: connections)
    } catch is CancellationError {
      throw CancellationError()
    } catch {
      return nil
    }
  }

  private static func measure(
    with iperf3: String, from sender: EmulatedHost, to receiver: EmulatedHost, connections: Int
  ) async throws -> LineRate? {
    let server = try receiver.spawn(iperf3, ["--server", "--bind", receiver.address], output: .null)
    defer { server.signal(SIGKILL) }
    // Until the server listens.
    for _ in 0..<20 {
      let output = try ProcessOutput()
      let client = try sender.spawn(
        iperf3, ["--client", receiver.address, "--parallel", "\(connections)", "--time", "2", "--json"],
        output: output.stream)
      output.started()
      defer { client.signal(SIGKILL) }
      let text = try await output.text(within: .seconds(20))
      if let result = try? JSONDecoder().decode(Iperf3Result.self, from: Data(text.utf8)) {
        return LineRate(bytesPerSecond: result.end.received.bitsPerSecond / 8, nic: nil)
      }
      try await Task.sleep(for: .milliseconds(100))
    }
    return nil
  }

  /// What counts of iperf3's own report.
  private struct Iperf3Result: Decodable {
    struct End: Decodable {
      struct Sum: Decodable {
        var bitsPerSecond: Double
        enum CodingKeys: String, CodingKey { case bitsPerSecond = "bits_per_second" }
      }
      var received: Sum
      enum CodingKeys: String, CodingKey { case received = "sum_received" }
    }
    var end: End
  }

  /// Runs both ends of a probe; the sender is told the port between `sending` and `rest`.
  ///
  /// - Returns: bytes per second.
  private static func run(
    _ serving: [String], and sending: [String], _ rest: [String], from sender: EmulatedHost, to receiver: EmulatedHost,
    within limit: Duration, executable: String?, arguments: [String], environment: [String: String]?
  ) async throws -> Double {
    let executable = try executable ?? Executable.path()
    let output = try ProcessOutput()
    let server = try receiver.spawn(
      executable, arguments + serving, environment: environment, output: output.stream)
    output.started()
    defer { server.signal(SIGKILL) }
    let port = try await answer(of: output, to: "listening", within: .seconds(60))[0]
    let client = try sender.spawn(
      executable, arguments + sending + ["\(port)"] + rest, environment: environment, output: .null)
    defer { client.signal(SIGKILL) }
    let result = try await answer(of: output, to: "received", within: limit)
    guard result[0] > 0, result[1] > 0 else {
      throw MobulaError(.unavailable, "The probe from \(sender.name) to \(receiver.name) carried nothing in its time.")
    }
    return Double(result[0]) * 1e9 / Double(result[1])
  }

  /// The numbers on the line that begins with `word`.
  static func answer(of output: ProcessOutput, to word: String, within limit: Duration) async throws -> [Int] {
    let expected = word == "listening" ? 1 : 2
    while let line = try await output.line(within: limit) {
      let words = line.split(separator: " ")
      guard words.first.map(String.init) == word else { continue }
      let numbers = words.dropFirst().compactMap { Int($0) }
      if numbers.count == expected { return numbers }
    }
    throw MobulaError(.unavailable, "The line rate's probe ended without a result: see what it wrote above.")
  }

  /// One end of a probe, blocking: `serve ADDRESS` or `send ADDRESS PORT MILLISECONDS`, or of a plain loop:
  /// `serve-plain ADDRESS BYTES CONNECTIONS` or `send-plain ADDRESS PORT BYTES CONNECTIONS`.
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
      case ("serve-plain", 4):
        guard let bytes = Int(arguments[2]), let connections = Int(arguments[3]) else { return 64 }
        try PlainLoop(bytes: bytes, connections: connections).serve(address: arguments[1])
      case ("send-plain", 5):
        guard let port = UInt16(arguments[2]), let bytes = Int(arguments[3]), let connections = Int(arguments[4])
        else { return 64 }
        try PlainLoop(bytes: bytes, connections: connections).send(to: arguments[1], port: port)
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
    let (listener, port) = try ProbeSockets.listening(on: address)
    say("listening \(port)")
    let connection = try ProbeSockets.accepted(by: listener)
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
    let connection = try ProbeSockets.connected(to: address, port: port)
    let raw = connection.rawValue
    let buffer = [UInt8](repeating: 0x5A, count: writeSize)
    let end = ContinuousClock.now + duration
    while ContinuousClock.now < end {
      try systemCall("The probe can't send") { Glibc.send(raw, buffer, buffer.count, CInt(MSG_NOSIGNAL)) }
    }
  }

  static func say(_ line: String) {
    print(line)
    fflush(nil)
  }
}
