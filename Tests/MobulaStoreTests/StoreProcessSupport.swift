import FoundationEssentials
import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaStore

/// Whether tests of minutes are wanted.
let longTests = getenv("MOBULA_LONG_TESTS") != nil

/// A process of `Tests/MobulaStoreProcess`, which ends with this one: it reads its commands to their end.
final class StoreChild: Sendable {
  let child: ChildProcess
  private let input: SharedDescriptor
  private let output: SharedDescriptor
  private let unread = Mutex<[UInt8]>([])

  static let executable: String = {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { readlink("/proc/self/exe", $0.baseAddress!, $0.count) }
    let path = String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    // The bundle is the executable itself, or run by a helper of the toolchain's that is given its path.
    for candidate in [path] + CommandLine.arguments
    where candidate.contains("/release/") || candidate.contains("/debug/") {
      let folder = candidate.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
      if access(folder + "/MobulaStoreProcess", X_OK) == 0 { return folder + "/MobulaStoreProcess" }
    }
    return ".build/release/MobulaStoreProcess"
  }()

  init(
    _ role: String, _ arguments: [String: String], environment: [String: String] = [:], extra: [CInt] = []
  ) throws {
    var down: [CInt] = [-1, -1]
    var up: [CInt] = [-1, -1]
    let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
    try systemCall("socketpair") { socketpair(AF_UNIX, kind, 0, &down) }
    try systemCall("socketpair") { socketpair(AF_UNIX, kind, 0, &up) }
    let theirs = [SharedDescriptor(OwnedDescriptor(owning: down[1])), SharedDescriptor(OwnedDescriptor(owning: up[1]))]
    input = SharedDescriptor(OwnedDescriptor(owning: down[0]))
    output = SharedDescriptor(OwnedDescriptor(owning: up[0]))
    child = try withExtendedLifetime(theirs) {
      try ChildProcess.spawn(
        Self.executable, [role] + arguments.map { "\($0.key)=\($0.value)" },
        environment: currentEnvironment().merging(environment) { $1 }, input: .descriptor(theirs[0].rawValue),
        output: .descriptor(theirs[1].rawValue), extra: extra)
    }
  }

  deinit { kill() }

  var pid: Int32 { child.pid }

  func send(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = Glibc.send(input.rawValue, bytes, bytes.count, CInt(MSG_NOSIGNAL))
  }

  /// The next line, or `nil` at the end, or after so many seconds.
  func line(within seconds: Int = 60) -> String? {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while true {
      let found = unread.withLock { bytes -> String? in
        guard let end = bytes.firstIndex(of: 10) else { return nil }
        defer { bytes.removeFirst(end + 1) }
        return String(decoding: bytes[..<end], as: UTF8.self)
      }
      if let found { return found }
      let left = ContinuousClock.now.duration(to: deadline) / .milliseconds(1)
      var polled = pollfd(fd: output.rawValue, events: Int16(POLLIN), revents: 0)
      guard left > 0, poll(&polled, 1, CInt(left)) > 0 else { return nil }
      var buffer = [UInt8](repeating: 0, count: 65_536)
      let count = read(output.rawValue, &buffer, buffer.count)
      guard count > 0 else { return nil }
      unread.withLock { $0 += buffer[..<count] }
    }
  }

  func ask(_ command: String, within seconds: Int = 60) -> String? {
    send(command)
    return line(within: seconds)
  }

  func kill() { child.signal(SIGKILL) }

  /// How it ended; `nil` when it did not within so long.
  func end(within seconds: Int = 30) -> ChildProcess.Exit? {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < deadline {
      if let exit = child.exit { return exit }
      usleep(500)
    }
    return child.exit
  }
}

/// A store that is a process, with a keeper here, and its clients' processes.
final class StoreProcesses: Sendable {
  let folder = TemporaryFolder()
  let keeper: DescriptorKeeper?
  let capacity: Int
  private let arguments: [String: String]
  private let running: Mutex<StoreChild>
  private static let lock = Mutex(())

  var socket: String { folder.path + "/store.sock" }
  var progress: String { folder.path + "/progress" }
  var store: StoreChild { running.withLock { $0 } }

  init(capacity: Int, _ more: [String: String] = [:], spills: Bool = false, keeps: Bool = false) throws {
    self.capacity = capacity
    raiseDescriptorLimit()
    keeper = keeps ? DescriptorKeeper() : nil
    var arguments = more
    arguments["capacity"] = "\(capacity)"
    arguments["socket"] = folder.path + "/store.sock"
    arguments["progress"] = folder.path + "/progress"
    if spills { arguments["spill"] = folder.path + "/spill 1," + folder.path + "/spill 2" }
    close(open(folder.path + "/progress", O_CREAT | O_RDWR, 0o600))
    self.arguments = arguments
    running = Mutex(try Self.start(arguments, keeper))
  }

  private static func start(_ arguments: [String: String], _ keeper: DescriptorKeeper?) throws -> StoreChild {
    guard let keeper else { return try StoreChild("store", arguments) }
    let end = try keeper.newConnection()
    return try StoreChild(
      "store", arguments, environment: [KeeperConnection.environmentVariable: "3"], extra: [end.rawValue])
  }

  /// Waits for `ready epoch …`, and returns the words behind it.
  @discardableResult
  func ready() throws -> [String] {
    let line = try #require(store.line(), "the store did not start")
    try #require(line.hasPrefix("ready "), "\(line)")
    return line.split(separator: " ").dropFirst().map(String.init)
  }

  /// Kills the store's process and starts the next.
  func restart() throws {
    store.kill()
    try #require(store.end() == .signal(SIGKILL))
    let next = try Self.start(arguments, keeper)
    running.withLock { $0 = next }
  }

  func client(
    _ role: String, _ more: [String: String], environment: [String: String] = [:]
  ) throws -> StoreChild {
    let ticket = try #require(store.ask("ticket"))
    var arguments = more
    arguments["socket"] = socket
    arguments["progress"] = progress
    arguments["ticket"] = ticket
    return try StoreChild(role, arguments, environment: environment)
  }

  func statistics() throws -> StoreStatistics {
    let line = try #require(store.ask("statistics"))
    return try JSONDecoder().decode(StoreStatistics.self, from: Data(line.utf8))
  }

  /// Reads everything that the makers of these slots told of, in another process, with the store's help for what
  /// is on disk, and returns how much it was.
  func readAll(kind: Int, slots: String) throws -> Int {
    let reader = try client("reader", ["kind": "\(kind)", "slots": slots, "all": "1"])
    while let line = reader.line(within: 120) {
      if line.hasPrefix("want ") {
        let answer = store.ask("restore " + line.dropFirst(5), within: 60)
        reader.send(answer ?? "the store did not answer")
      } else if line.hasPrefix("read ") {
        return Int(line.dropFirst(5)) ?? -1
      } else {
        Issue.record("the reader says: \(line)")
        return -1
      }
    }
    return -1
  }

  deinit {
    store.kill()
    _ = store.end()
    keeper?.close()
  }
}

/// What the kernel says of a process.
struct ProcessFacts: Hashable {
  var threads: Int
  var descriptors: Int
  /// Bytes that its segments take.
  var segmentBytes: Int

  init(_ pid: Int32) {
    threads = entries(of: "/proc/\(pid)/task").filter { $0.first != "." }.count
    let names = entries(of: "/proc/\(pid)/fd").filter { $0.first != "." }
    descriptors = names.count
    var seen: Set<UInt> = []
    var bytes = 0
    for name in names {
      let path = "/proc/\(pid)/fd/\(name)"
      var buffer = [UInt8](repeating: 0, count: 512)
      let count = buffer.withUnsafeMutableBytes { readlink(path, $0.baseAddress!, 512) }
      guard String(decoding: buffer.prefix(max(0, count)), as: UTF8.self).hasPrefix("/memfd:mobula-segment") else {
        continue
      }
      var status = stat()
      if stat(path, &status) == 0, seen.insert(UInt(status.st_ino)).inserted { bytes += Int(status.st_blocks) * 512 }
    }
    segmentBytes = bytes
  }
}
