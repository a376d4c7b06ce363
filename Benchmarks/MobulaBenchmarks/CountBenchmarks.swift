import CAllocationCount
import Glibc
import MobulaCore
import MobulaStore

/// The rows with thresholds. Each group is measured in a process of its own, so that neither what
/// another did to the heap nor a filter for system calls matters to it.
enum CountBenchmarks {
  static let all = [
    Benchmark(names: OperationCounts.names, isTimed: false) { try rows(of: .operations, $0) },
    Benchmark(names: SharedReads.names, isTimed: false) { try rows(of: .sharedReads, $0) },
  ]

  private static func rows(of role: Role, _ options: Options) throws -> [Row] {
    let child = try Child(role, nil, [options.isQuick ? "quick" : "whole"])
    var rows: [Row] = []
    while let line = child.hear() {
      switch line.word {
      case "row": rows.append(try decoded(Row.self, line.rest))
      case "skip": throw Skipped(reason: line.rest)
      case "end":
        // It closes its store before it ends.
        _ = try child.end()
        return rows
      default: break
      }
    }
    throw MobulaError(.workFailed, "The process that counts ended early (\(try child.end())).")
  }
}

/// Counts system calls of one thread and of those that it starts.
///
/// `@unchecked Sendable`: the counter is atomic words, and is never freed.
struct CallCounter: @unchecked Sendable {
  private let counter: OpaquePointer

  /// - Throws: `Skipped` where the system has no such filters.
  init() throws {
    guard let counter = mobula_count_system_calls() else {
      throw Skipped(reason: "system calls can't be counted here: seccomp says \(errnoText(currentErrno()))")
    }
    self.counter = counter
  }

  var all: UInt64 { mobula_system_calls(counter, -1) }

  /// By number.
  var each: [UInt64] { (0..<MOBULA_LARGEST_CALL).map { mobula_system_calls(counter, $0) } }
}

/// Measures one operation after the other on the calling thread.
struct OperationCounts {
  static let names = [
    "attach", "first get from a process's memory", "get of 1 kB", "get of 100 MB", "get by call",
    "put of 200 bytes, store awake", "put of 200 bytes, store asleep", "confirmation", "draft of 100 MB, cold",
    "put of 100 MB, warm", "put of 1 MB, warm",
  ]

  let calls: CallCounter
  let storeCalls: CallCounter
  let report: @Sendable (Row) throws -> Void

  static func run(_ parent: Parent, isQuick: Bool) throws {
    let made: (BenchStore, CallCounter) = try onOwnThread {
      // Threads have the filters of the thread that starts them: all of the store's have this one.
      let counter = try CallCounter()
      return (try BenchStore(capacity: 1 << 30), counter)
    }
    let (host, storeCalls) = made
    defer { host.close() }
    let maker = try host.client()
    try maker.put(.number(1), size: 1000)
    try maker.put(.number(2), size: 100_000_000)
    try maker.confirm(.number(2))
    try onOwnThread {
      let counts = OperationCounts(calls: try CallCounter(), storeCalls: storeCalls) {
        parent.say("row \(try encoded($0))")
      }
      try counts.checkTheCounters()
      try counts.measureAll(host, isQuick ? 200 : 2000)
    }
    withExtendedLifetime(maker) {}
    parent.say("end")
  }

  /// Counters that count nothing would find nothing.
  private func checkTheCounters() throws {
    let (calls, allocations) = (self.calls.all, mobula_allocations_here())
    for _ in 0..<3 { _ = getppid() }
    let called = self.calls.all - calls
    var array = [UInt8](repeating: 1, count: 100)
    array.append(contentsOf: repeatElement(2, count: 10_000))
    guard called == 3, array.count == 10_100, mobula_allocations_here() >= allocations + 1 else {
      throw MobulaError(.workFailed, "The counters missed what they had to count: don't trust the other rows.")
    }
  }

  private func measureAll(_ host: BenchStore, _ many: Int) throws {
    let store = host.store
    let wrong = MobulaError(.notFound, "An object of the benchmark's is gone.")
    var client = try host.client()
    try measure("attach", 5, warmUp: 1) { _ in client = try host.client() }
    try measure("first get from a process's memory", 5, warmUp: 0, before: { _ in client = try host.client() }) { _ in
      guard let pinned = try client.pin(.number(1)), pinned.bytes.count == 1000 else { throw wrong }
    }
    for (name, number) in [("get of 1 kB", UInt64(1)), ("get of 100 MB", 2)] {
      try measure(name, many) { _ in
        guard let pinned = try client.pin(.number(number)), pinned.bytes.last == 7 else { throw wrong }
      }
    }
    try measure("get by call", 50) { _ in
      guard try client.pinSlowly(.number(1)).bytes.last == 7 else { throw wrong }
    }
    try measureSmallPuts(host, client, many)
    let content = [UInt8](repeating: 3, count: 1_000_000)
    try measure("draft of 100 MB, cold", 1, warmUp: 0) { _ in
      _ = try client.draft(.number(100), size: 100_000_000)
    }
    try measure("put of 100 MB, warm", 3, after: { store.delete(.number(UInt64(200 + $0))) }) { index in
      let object = ObjectID.number(UInt64(200 + index))
      let draft = try client.draft(object, size: 100_000_000)
      var writer = draft.writer()
      writer.appendZeros(100_000_000)
      try draft.seal(checksums: writer.finish())
      try client.confirm(object)
    }
    try measure("put of 1 MB, warm", 50, warmUp: 10, after: { store.delete(.number(UInt64(300 + $0))) }) { index in
      let object = ObjectID.number(UInt64(300 + index))
      let draft = try client.draft(object, size: 1_000_000)
      var writer = draft.writer()
      content.withUnsafeBytes { writer.append($0) }
      try draft.seal(checksums: writer.finish())
      try client.confirm(object)
    }
    withExtendedLifetime(client) {}
  }

  private func measureSmallPuts(_ host: BenchStore, _ client: StoreClient, _ many: Int) throws {
    let first: UInt64 = 1000
    func put(_ index: Int) throws {
      let draft = try client.draft(.number(first + UInt64(index)), size: 200)
      draft.memory.initializeMemory(as: UInt8.self, repeating: 5)
      try draft.seal()
    }
    func deleteAll(_ count: Int) throws {
      try client.confirm(.number(first))
      for index in -1...count { host.store.delete(.number(first + UInt64(index + 1))) }
    }
    // Once to touch the memory, which is returned then.
    for index in 0...many + 3 { try put(index) }
    try deleteAll(many + 3)
    // The store's thread is held where it tells its host of an object: clients see it awake.
    host.gate.close()
    try put(many + 3)
    host.gate.waitForArrival()
    try measure("put of 200 bytes, store awake", many) { try put($0) }
    host.gate.open()
    try deleteAll(many + 3)
    try measure("put of 200 bytes, store asleep", 20, before: { _ in usleep(3000) }) { try put($0) }
    try deleteAll(30)
    try measure("confirmation", 50, before: { try put($0) }) { try client.confirm(.number(first + UInt64($0))) }
    try deleteAll(60)
  }

  /// Counts over `operations` calls of `body`, after some that don't count; their numbers go on from 0.
  ///
  /// - Parameters:
  ///   - before: what has to happen before each, and doesn't count.
  ///   - after: the same for what comes after it.
  private func measure(
    _ name: String, _ operations: Int, warmUp: Int = 3, before: (Int) throws -> Void = { _ in },
    after: (Int) throws -> Void = { _ in }, _ body: (Int) throws -> Void
  ) throws {
    var counted = (calls: UInt64(0), store: UInt64(0), allocations: UInt64(0), faults: Int64(0))
    var byNumber = [UInt64](repeating: 0, count: Int(MOBULA_LARGEST_CALL))
    for index in 0..<warmUp + operations {
      try before(index)
      let each = operations <= 50 ? calls.each : []
      let faults = mobula_page_faults_here()
      let (calls, store, allocations) = (self.calls.all, storeCalls.all, mobula_allocations_here())
      try body(index)
      let allocationsAfter = mobula_allocations_here()
      let (callsAfter, storeAfter) = (self.calls.all, storeCalls.all)
      let faultsAfter = mobula_page_faults_here()
      if index >= warmUp {
        counted.calls += callsAfter - calls
        counted.store += storeAfter - store
        counted.allocations += allocationsAfter - allocations
        counted.faults += faultsAfter - faults
        // The two that asked for the page faults are among them.
        if !each.isEmpty {
          for (number, count) in self.calls.each.enumerated() { byNumber[number] += count - each[number] }
        }
      }
      try after(index)
    }
    func average(_ count: some BinaryInteger) -> Double { Double(count) / Double(operations) }
    byNumber[Self.numberOfFaultCall] -= min(byNumber[Self.numberOfFaultCall], UInt64(2 * operations))
    let detail = byNumber.enumerated().filter { $0.element > 0 }.map { number, count in
      let name = mobula_name_of_system_call(CInt(number)).map { String(cString: $0) } ?? "call \(number)"
      return "\(Figure(name: "", value: average(count)).text) \(name)"
    }
    try report(
      Row(
        name: name,
        counts: [
          Figure(name: "system calls", value: average(counted.calls)),
          Figure(name: "store's calls", value: average(counted.store)),
          Figure(name: "allocations", value: average(counted.allocations)),
          Figure(name: "page faults", value: average(counted.faults)),
        ], detail: detail.isEmpty ? nil : detail.joined(separator: ", ")))
  }

  private static let numberOfFaultCall = (0..<Int(MOBULA_LARGEST_CALL)).first { number in
    mobula_name_of_system_call(CInt(number)).map { String(cString: $0) } == "getrusage"
  }!
}

extension StoreClient {
  /// Puts `size` bytes of 7.
  func put(_ object: ObjectID, size: Int) throws {
    let draft = try draft(object, size: size)
    draft.memory.initializeMemory(as: UInt8.self, repeating: 7)
    try draft.seal()
  }
}
