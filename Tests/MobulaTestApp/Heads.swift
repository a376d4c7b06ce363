import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import Synchronization

// MARK: - The head's process dies, again and again

/// What is done meanwhile, and how long each of it took at most.
private final class Work: Sendable {
  private let state = Mutex((isOver: false, longest: [String: Duration](), counts: [String: Int]()))

  var isOver: Bool { state.withLock { $0.isOver } }
  func end() { state.withLock { $0.isOver = true } }

  /// Does something over and over until the end.
  func loop(_ name: String, pause: Duration, _ body: (Int) async throws -> Void) async throws {
    var number = 0
    while !isOver {
      let start = ContinuousClock.now
      do {
        try await body(number)
      } catch {
        throw Failure("\(name) \(number): \(error)")
      }
      let took = ContinuousClock.now - start
      state.withLock { state in
        state.longest[name] = max(state.longest[name] ?? .zero, took)
        state.counts[name, default: 0] += 1
      }
      number += 1
      try await Task.sleep(for: pause)
    }
  }

  var report: String {
    state.withLock { state in
      state.longest.sorted { $0.key < $1.key }.map { "\($0.key): \(state.counts[$0.key]!), longest \($0.value)" }
        .joined(separator: "\n")
    }
  }

  func count(_ name: String) -> Int { state.withLock { $0.counts[name] ?? 0 } }
}

/// Puts, gets, names, tasks and calls go on while the head is killed, and lose nothing.
func heads(_ cluster: Cluster) async throws {
  let rounds = currentEnvironment()["ROUNDS"].flatMap { Int($0) } ?? 10
  let processes = [try process(of: "host"), try process(of: "pod")]
  let counter = try await cluster.spawn(Counter.self, with: 0, .resources(cpu: 0.1))
  let worker = try await counter.process()
  let model = try await cluster.put(Blob([UInt8](repeating: 3, count: 3_000_000)))
  try await cluster.name(model, "model")
  let work = Work()
  try await withThrowingTaskGroup(of: Void.self) { group in
    group.addTask {
      try await work.loop("put and get", pause: .milliseconds(2)) { number in
        try check(try await cluster.put(number).value == number, "what was put is there")
      }
    }
    group.addTask {
      try await work.loop("name", pause: .milliseconds(5)) { number in
        let reference = try await cluster.put([number, number])
        try await cluster.name(reference, "number \(number)")
      }
    }
    group.addTask {
      try await work.loop("resolve", pause: .milliseconds(5)) { number in
        let found = try await cluster.object(named: "model", as: Blob.self)
        try check(found.id == model.id, "the name is the model's")
      }
    }
    group.addTask {
      try await work.loop("task", pause: .milliseconds(5)) { number in
        let (a, b) = (try await cluster.put(number), try await cluster.put(1))
        let sum = try await cluster.submit(Add(a: a, b: b), .resources(cpu: 0.1)).value
        try check(sum == number + 1, "a task's sum")
      }
    }
    group.addTask {
      try await work.loop("nested task", pause: .milliseconds(20)) { _ in
        let inner = try await cluster.submit(Nested(), .resources(cpu: 0)).value
        try check(try await inner.value == 3, "a nested task's result")
      }
    }
    group.addTask {
      // Each call once: what it counts to is how often it was called.
      try await work.loop("call", pause: .milliseconds(2)) { number in
        let value = try await counter.add(1)
        try check(value == number + 1, "call \(number) counted to \(value)")
      }
    }
    group.addTask {
      for _ in 0..<rounds {
        try await Task.sleep(for: .milliseconds(Int.random(in: 2100...2600)))
        kill(try process(of: "head"), SIGKILL)
      }
      try await Task.sleep(for: .seconds(2))
      work.end()
    }
    do {
      try await group.waitForAll()
    } catch {
      work.end()
      throw error
    }
  }
  for number in 0..<work.count("name") {
    let value = try await cluster.object(named: "number \(number)", as: [Int].self).value
    try check(value == [number, number], "number \(number) has its value")
  }
  try check(try await model.value.count == 3_000_000, "the model is there")
  try check([try process(of: "host"), try process(of: "pod")] == processes, "neither host nor pod was started again")
  try check(try await counter.process() == worker, "nor was the actor's worker")
  FileHandle.write("\(work.report)\n")
  // The scenario's end is to find what it found before.
  for number in 0..<work.count("name") {
    _ = try await cluster.remove("number \(number)")
  }
  _ = try await cluster.remove("model")
}

private enum FileHandle {
  static func write(_ text: String) {
    let bytes = Array(text.utf8)
    _ = Glibc.write(2, bytes, bytes.count)
  }
}
