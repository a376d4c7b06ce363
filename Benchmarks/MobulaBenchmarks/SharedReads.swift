import CAllocationCount
import FoundationEssentials
import Glibc
import MobulaCore
import MobulaStore

/// What many processes that read one object cost, and that a get and a small put make no system call at all.
enum SharedReads {
  static let names = [
    "get of 1 kB and of 564 MB, calls forbidden", "put of 200 bytes, calls forbidden", "ten readers of 564 MB",
  ]
  static let bigSize = 564_000_000
  private static let small = ObjectID.number(1)
  private static let big = ObjectID.number(2)
  private static let puts = 2000

  static func run(_ parent: Parent, isQuick: Bool) throws {
    let needed = bigSize + 300_000_000
    guard availableMemory() > needed else {
      return parent.say("skip less than \(ByteCount(needed)) of memory is free")
    }
    let host = try BenchStore(capacity: bigSize + (100 << 20))
    defer { host.close() }
    let maker = try Child(.maker, host, [1000, bigSize])
    try maker.expect("made")
    // What it made outlives it.
    maker.say("go")
    _ = try maker.end()
    try checkThatCallsKill()
    let gets = isQuick ? 100_000 : 1_000_000
    parent.say("row \(try encoded(forbidden(names[0], Child(.forbiddenGets, host, [gets]))))")
    parent.say("row \(try encoded(readers(host)))")
    parent.say("row \(try encoded(forbiddenPuts(host)))")
    parent.say("end")
  }

  /// What a process came to that was not to make system calls.
  private static func forbidden(_ name: String, _ child: Child) throws -> Row {
    switch child.hear() {
    case let line? where line.word == "held": return Row(name: name, counts: [Figure(name: "killed", value: 0)])
    case let line? where line.word == "skip": return Row(name: name, skipped: line.rest)
    default:
      let end = try child.end()
      guard end == .signal(SIGSYS) else {
        throw MobulaError(.workFailed, "The process of \"\(name)\" ended with \(end).")
      }
      return Row(name: name, counts: [Figure(name: "killed", value: 1)])
    }
  }

  /// A filter that kills nobody would prove nothing.
  private static func checkThatCallsKill() throws {
    let row = try forbidden("one system call", Child(.forbiddenCall))
    if let reason = row.skipped { throw Skipped(reason: reason) }
    guard row.counts.first?.value == 1 else {
      throw MobulaError(.workFailed, "A process made a system call that was forbidden: don't trust the other rows.")
    }
  }

  private static func forbiddenPuts(_ host: BenchStore) throws -> Row {
    let child = try Child(.forbiddenPuts, host)
    try child.expect("ready")
    // While it is held here, the store's thread is awake: nobody has to wake it.
    host.gate.close()
    child.say("go")
    try child.expect("put")
    host.gate.waitForArrival()
    child.say("go")
    let row = try forbidden(names[1], child)
    host.gate.open()
    guard row.skipped == nil, row.counts.first?.value == 0 else { return row }
    _ = try child.end()
    for _ in 0..<10_000 where host.store.info(of: .number(UInt64(10 + puts))) == nil { usleep(1000) }
    for index in 0...puts where host.store.info(of: .number(UInt64(10 + index))) == nil {
      throw MobulaError(.notFound, "Object \(index) of \(puts), which was put without system calls, did not come.")
    }
    return row
  }

  private static func readers(_ host: BenchStore) throws -> Row {
    let readers = try (0..<10).map { _ in try Child(.reader, host) }
    var copied = 0.0
    for reader in readers { try reader.expect("attached") }
    for reader in readers { reader.say("go") }
    for reader in readers { copied = max(copied, Double(try reader.expect("read")) ?? 0) }
    // Now all of them have all of it.
    let memory = try (readers.map(\.number) + [getpid()]).map { try Self.memory(of: $0) }
    let (own, all) = memory.reduce((0, 0)) { ($0.0 + $1.own, $0.1 + $1.all) }
    for reader in readers { reader.say("go") }
    for reader in readers { _ = try reader.end() }
    return Row(
      name: names[2],
      counts: [
        Figure(name: "copied bytes", value: copied),
        Figure(name: "memory", value: Double(own) / Double(bigSize)),
        Figure(name: "with code", value: Double(all) / Double(bigSize)),
      ])
  }

  /// A process's share of its memory, with its page tables: without what belongs to files, which is the
  /// code of its libraries, and all.
  private static func memory(of process: Int32) throws -> (own: Int, all: Int) {
    let rollup = try String(contentsOfFile: "/proc/\(process)/smaps_rollup", encoding: .utf8)
    let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
    let share = field("Pss:", of: rollup)
    guard share > 0 else { throw Skipped(reason: "the system does not say how much memory a process has") }
    let all = share + field("VmPTE:", of: status)
    return (all - field("Pss_File:", of: rollup), all)
  }

  // MARK: The other processes

  /// Makes objects of the given sizes, numbered from 1.
  static func make(_ parent: Parent, _ sizes: [Int]) throws {
    let client = try parent.attach()
    for (index, size) in sizes.enumerated() { try client.put(.number(UInt64(index + 1)), size: size) }
    try client.confirm(.number(UInt64(sizes.count)))
    parent.say("made")
    _ = try parent.hear()
  }

  static func forbiddenCall(_ parent: Parent) throws {
    try forbidSystemCalls(parent)
    _ = getppid()
    held()
  }

  static func forbiddenGets(_ parent: Parent, _ count: Int) throws {
    let client = try parent.attach()
    for object in [small, big] {
      guard let pinned = try client.pin(object), pinned.bytes.first == 7, pinned.bytes.last == 7 else {
        throw MobulaError(.notFound, "Object \(object) is not there.")
      }
    }
    try forbidSystemCalls(parent)
    for _ in 0..<count {
      guard let one = try client.pin(small), let other = try client.pin(big), one.bytes.last == 7, other.bytes.last == 7
      else { _exit(3) }
    }
    held()
  }

  static func forbiddenPuts(_ parent: Parent) throws {
    let client = try parent.attach()
    try client.put(.number(9), size: 200)
    try client.confirm(.number(9))
    parent.say("ready")
    _ = try parent.hear()
    try client.put(.number(10), size: 200)
    parent.say("put")
    _ = try parent.hear()
    try forbidSystemCalls(parent)
    for index in 1...puts { try client.put(.number(UInt64(10 + index)), size: 200) }
    held()
  }

  private static func forbidSystemCalls(_ parent: Parent) throws {
    guard mobula_forbid_system_calls() == 0 else {
      parent.say("skip seccomp says \(errnoText(currentErrno()))")
      _exit(0)
    }
  }

  /// Says that no call was made, by one of the two that are allowed.
  private static func held() -> Never {
    "held\n".utf8CString.withUnsafeBytes { bytes in _ = write(1, bytes.baseAddress!, 5) }
    _exit(0)
  }

  static func read(_ parent: Parent) throws {
    let client = try parent.attach()
    parent.say("attached")
    _ = try parent.hear()
    _ = mobula_private_bytes()
    let before = mobula_private_bytes()
    guard let pinned = try client.pin(big) else { throw MobulaError(.notFound, "Object \(big) is not there.") }
    let sum = touch(pinned.bytes)
    let growth = max(0, mobula_private_bytes() - before)
    guard sum == 7 * ((pinned.bytes.count + pageSize - 1) / pageSize) else {
      throw MobulaError(.corrupted, "Object \(big) has other bytes than were put.")
    }
    parent.say("read \(growth)")
    _ = try parent.hear()
  }

  /// Reads a byte of each page, and returns their sum.
  static func touch(_ bytes: UnsafeRawBufferPointer) -> Int {
    var sum = 0
    for offset in stride(from: 0, to: bytes.count, by: pageSize) { sum &+= Int(bytes[offset]) }
    return sum
  }
}
