import Distributed
import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import Synchronization

// A driver that uses all of a cluster until it is told to end, for the long tests, which do something to the cluster
// meanwhile. It writes down what it did: a line for each thing, `WHAT FROM TO ok`, `WHAT FROM TO error: …`, with the
// seconds of CLOCK_MONOTONIC, and `named NAME NUMBER` or `perhaps NAME NUMBER` before and after it names an object.

/// Bytes that follow from a number, as the long tests compute them, too.
func pattern(_ number: Int, size: Int) -> [UInt8] {
  (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8) &* 7 &+ number &* 13) }
}

/// So many bytes has the pattern of a number, where nothing else is said.
func patternSize(_ number: Int) -> Int { 1_000 + (number &* 7_919) % 40_000 }

/// A wrong answer: whatever is done to a cluster, there may be none.
private struct Wrong: Error, CustomStringConvertible {
  let description: String
}

private func right(_ condition: Bool, _ what: @autoclosure () -> String) throws {
  guard condition else { throw Wrong(description: what()) }
}

/// An actor on a certain host: counts, keeps a view, reads what others made and makes what others read.
distributed actor Resident: RemoteActor {
  typealias ActorSystem = Cluster
  private var count = 0
  private let kept: Blob
  private let number: Int

  init(configuration: Int, actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    number = configuration
    kept = try await actorSystem.put(Blob(pattern(configuration, size: 300_000))).value
  }

  distributed func process() -> Int32 { getpid() }

  distributed func add() -> Int {
    count += 1
    return count
  }

  /// Whether the view is as it was.
  distributed func isWhole() -> Bool { kept.withUnsafeBytes { $0.elementsEqual(pattern(number, size: 300_000)) } }

  /// Whether an object has the bytes of a number here.
  distributed func reads(_ object: ObjectRef<Blob>, _ number: Int, size: Int) async throws -> Bool {
    try await object.value.withUnsafeBytes { $0.elementsEqual(pattern(number, size: size)) }
  }

  distributed func makes(_ number: Int, size: Int) async throws -> ObjectRef<Blob> {
    try await actorSystem.put(Blob(pattern(number, size: size)))
  }
}

/// Reads on some host what the driver made, and makes what the driver reads.
struct Doubled: RemoteTask {
  var object: ObjectRef<Blob>
  func run(in context: TaskContext) async throws -> Blob {
    try await object.value.withUnsafeBytes { Blob(Array($0) + Array($0)) }
  }
}

/// Writes lines to a file, one at a time.
private final class Notes: Sendable {
  private let descriptor: CInt

  init(_ path: String) throws {
    descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw Failure("\(path) can't be made") }
  }

  func write(_ line: String) {
    let bytes = Array((line.split(whereSeparator: \.isNewline).joined(separator: " ") + "\n").utf8)
    _ = Glibc.write(descriptor, bytes, bytes.count)
  }

  static var now: Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

private struct Life: Sendable {
  let cluster: Cluster
  let notes: Notes
  let stop: String
  let first: Int
  /// How much of everything is done: a pause of 1 is as fast as one machine for all can do.
  let pace: Double
  /// Whether an error ends it.
  let isStrict: Bool

  var isOver: Bool { access(stop, F_OK) == 0 }

  /// Does something over and over until the end.
  func loop(_ what: String, pause: Int, _ body: (Int) async throws -> Void) async throws {
    var number = first
    while !isOver {
      let start = Notes.now
      do {
        try await body(number)
        notes.write("\(what) \(start) \(Notes.now) ok")
      } catch let wrong as Wrong {
        notes.write("\(what) \(start) \(Notes.now) WRONG: \(wrong)")
        throw wrong
      } catch {
        notes.write("\(what) \(start) \(Notes.now) error: \(error)")
        if isStrict { throw Failure("\(what) \(number): \(error)") }
      }
      number += 1
      try await Task.sleep(for: .milliseconds(Int(Double(pause) * pace)))
    }
  }

  func putAndGet(_ number: Int) async throws {
    try right(try await cluster.put(number).value == number, "what was put is another number")
    let size = number % 20 == 0 ? 1_500_000 : 5_000
    let blob = try await cluster.put(Blob(pattern(number, size: size))).value
    try right(blob.withUnsafeBytes { $0.elementsEqual(pattern(number, size: size)) }, "what was put has other bytes")
  }

  func name(_ prefix: String, _ number: Int) async throws {
    let name = "\(prefix)-\(number)"
    let reference = try await cluster.put(Blob(pattern(number, size: patternSize(number))))
    notes.write("perhaps \(name) \(number)")
    try await cluster.name(reference, name)
    notes.write("named \(name) \(number)")
    // One of those before, too, wherever it is now.
    let other = first + (number &* 7_919) % max(1, number - first + 1)
    do {
      let blob = try await cluster.object(named: "\(prefix)-\(other)", as: Blob.self).value
      try right(
        blob.withUnsafeBytes { $0.elementsEqual(pattern(other, size: patternSize(other))) },
        "\(prefix)-\(other) has other bytes")
    } catch let error as MobulaError where error.code == .notFound && !isStrict {
      // It may never have got its name.
    }
  }

  func task(_ number: Int, _ strategy: PlacementStrategy) async throws {
    let size = 1_000 + number % 3 * 200_000
    let object = try await cluster.put(Blob(pattern(number, size: size)))
    let result = try await cluster.submit(Doubled(object: object), .resources(cpu: 0.1, placement: strategy)).value
    try right(
      result.withUnsafeBytes {
        $0.count == 2 * size && $0.prefix(size).elementsEqual(pattern(number, size: size))
          && $0.suffix(size).elementsEqual(pattern(number, size: size))
      }, "a task's result has other bytes")
  }

  func nested() async throws {
    let inner = try await cluster.submit(Nested(), .resources(cpu: 0)).value
    try right(try await inner.value == 3, "a nested task's result is another")
  }

  func exchange(_ resident: Resident, _ number: Int) async throws {
    let size = 2_000 + number % 4 * 300_000
    let mine = try await cluster.put(Blob(pattern(number, size: size)))
    try right(try await resident.reads(mine, number, size: size), "an actor read other bytes")
    let theirs = try await resident.makes(number + 1, size: size)
    let blob = try await theirs.value
    try right(
      blob.withUnsafeBytes { $0.elementsEqual(pattern(number + 1, size: size)) }, "what an actor made has other bytes")
    try right(try await resident.isWhole(), "an actor's view has other bytes")
  }

  func broadcast(_ residents: [Resident], _ number: Int) async throws {
    let size = 700_000
    let model = try await cluster.put(Blob(pattern(number, size: size)))
    try await model.broadcast()
    for resident in residents {
      try right(try await resident.reads(model, number, size: size), "a broadcast brought other bytes")
    }
  }

  func fetch(_ urls: [String], _ endpoint: String?, _ residents: [Resident], _ number: Int) async throws {
    let index = number % urls.count
    let url = urls[index]
    let model = try await cluster.fetch(url, endpoint: endpoint)
    let blob = try await model.value
    let size = blob.count
    try right(blob.withUnsafeBytes { $0.elementsEqual(pattern(index, size: size)) }, "\(url) has other bytes")
    for resident in residents {
      try right(try await resident.reads(model, index, size: size), "\(url) has other bytes elsewhere")
    }
    // The next fetch reads S3 again.
    _ = try await cluster.remove(url)
  }
}

/// `LIFE_STOP` is a file at which it ends, `LIFE_NOTES` where it writes to, `LIFE_NAMES` what its names begin with,
/// `LIFE_FIRST` its first number, `LIFE_HOSTS` the hosts' names that have actors, `LIFE_URLS` objects in S3 at
/// `LIFE_ENDPOINT`, of which number n has the pattern n; with `LIFE_STRICT` an error ends it.
func life(_ cluster: Cluster) async throws {
  let environment = currentEnvironment()
  func list(_ name: String) -> [String] { environment[name]?.split(separator: ",").map(String.init) ?? [] }
  guard let stop = environment["LIFE_STOP"], let path = environment["LIFE_NOTES"] else {
    throw Failure("LIFE_STOP and LIFE_NOTES are missing")
  }
  // Every wait ends while the test still looks.
  var options = cluster.options
  options.valueDeadline = .seconds(60)
  options.workDeadline = .seconds(60)
  let cluster = try await Cluster.connect(options)
  let life = Life(
    cluster: cluster, notes: try Notes(path), stop: stop, first: environment["LIFE_FIRST"].flatMap { Int($0) } ?? 0,
    pace: environment["LIFE_PACE"].flatMap { Double($0) } ?? 1, isStrict: environment["LIFE_STRICT"] != nil)
  let prefix = environment["LIFE_NAMES"] ?? "life"
  let urls = list("LIFE_URLS")
  let hosts = try await cluster.status().hosts
  var residents: [Resident] = []
  for (index, name) in list("LIFE_HOSTS").enumerated() {
    guard let host = hosts.first(where: { $0.name == Name(name) })?.host else {
      throw Failure("no host is called \(name)")
    }
    let resident = try await cluster.spawn(
      Resident.self, with: index, .resources(cpu: 0.1, placement: .host(host)))
    life.notes.write("actor \(name) \(try await resident.process())")
    residents.append(resident)
  }
  let kept = try await cluster.put(Blob(pattern(4_711, size: 500_000)))
  let view = try await kept.value
  life.notes.write("ready")
  let everybody = residents
  try await withThrowingTaskGroup(of: Void.self) { group in
    group.addTask { try await life.loop("put", pause: 10) { try await life.putAndGet($0) } }
    group.addTask { try await life.loop("name", pause: 40) { try await life.name(prefix, $0) } }
    group.addTask { try await life.loop("task", pause: 50) { try await life.task($0, .pack) } }
    group.addTask { try await life.loop("spread", pause: 50) { try await life.task($0, .spread) } }
    group.addTask { try await life.loop("nested", pause: 100) { _ in try await life.nested() } }
    group.addTask {
      try await life.loop("view", pause: 200) { _ in
        try right(view.withUnsafeBytes { $0.elementsEqual(pattern(4_711, size: 500_000)) }, "the driver's view changed")
        let again = try await kept.value
        try right(again.count == 500_000, "what the driver holds has another size")
      }
    }
    for (index, resident) in everybody.enumerated() {
      group.addTask { try await life.loop("exchange", pause: 60) { try await life.exchange(resident, $0 + index) } }
      group.addTask {
        // Each call once: what it counts to is how often it was called. A call that failed may have run.
        var (sure, perhaps) = (0, 0)
        try await life.loop("call", pause: 20) { _ in
          perhaps += 1
          let value = try await resident.add()
          try right(sure + 1 <= value && value <= perhaps, "call \(perhaps) counted to \(value), after \(sure)")
          (sure, perhaps) = (value, value)
        }
      }
    }
    if !everybody.isEmpty {
      group.addTask { try await life.loop("broadcast", pause: 200) { try await life.broadcast(everybody, $0) } }
    }
    if !urls.isEmpty {
      group.addTask {
        try await life.loop("fetch", pause: 100) {
          try await life.fetch(urls, environment["LIFE_ENDPOINT"], everybody, $0)
        }
      }
    }
    do {
      while try await group.next() != nil {}
    } catch {
      life.notes.write("ended: \(error)")
      throw error
    }
  }
  for (index, resident) in residents.enumerated() {
    do { life.notes.write("still \(index) \(try await resident.process())") } catch {
      life.notes.write("gone \(index) \(error)")
      if life.isStrict { throw error }
    }
  }
  await cluster.close()
  life.notes.write("end")
}

// MARK: - Names a second

/// `CLIENTS` clients, each with connections of its own, name one object after the other for `SECONDS` seconds.
func names(_ cluster: Cluster) async throws {
  let environment = currentEnvironment()
  let clients = environment["CLIENTS"].flatMap { Int($0) } ?? 64
  let seconds = environment["SECONDS"].flatMap { Double($0) } ?? 10
  var connected: [Cluster] = []
  for _ in 0..<clients { connected.append(try await Cluster.connect(cluster.options)) }
  let all = connected
  let begun = Notes.now
  let total = try await withThrowingTaskGroup(of: Int.self) { group in
    for (index, client) in all.enumerated() {
      group.addTask {
        let object = try await client.put(index)
        var count = 0
        while Notes.now - begun < seconds {
          try await client.name(object, "client \(index) name \(count)")
          count += 1
        }
        return count
      }
    }
    return try await group.reduce(0, +)
  }
  let took = Notes.now - begun
  print("\(total) names by \(clients) clients in \(took) s: \(Int(Double(total) / took)) a second")
  for client in all { await client.close() }
}
