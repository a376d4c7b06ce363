import Distributed
import FoundationEssentials
import Glibc
import Mobula
import MobulaCore

/// A program as users write them, run by the tests: its scenario is in `SCENARIO`.
@main
struct TestApp: MobulaApp {
  func run(on cluster: Cluster) async throws {
    switch currentEnvironment()["SCENARIO"] {
    case "tasks": try await tasks(cluster)
    case "options": try await options(cluster)
    case "waits": try await waits(cluster)
    case "starved": try await starved(cluster)
    case "calls": try await calls(cluster)
    case "prints": try await prints(cluster)
    case "trace": try await trace(cluster)
    case "million": try await million(cluster)
    case "thousand": try await thousand(cluster)
    case "actors": try await actors(cluster)
    case "restarts": try await restarts(cluster)
    case "ends": try await ends(cluster)
    case "named": try await named(cluster)
    case "leaves": try await leaves(cluster)
    case "gpus": try await gpus(cluster)
    case "finds": try await finds(cluster)
    case "holds": try await holds(cluster)
    case "losses": try await losses(cluster)
    case "full": try await full(cluster)
    case "traps": try await traps(cluster)
    case "environment": try await environment(cluster)
    case "outage": try await outage(cluster)
    case "heads": try await heads(cluster)
    case "life": try await life(cluster)
    case "names": try await names(cluster)
    case "sleep":
      let object = try await cluster.put([1, 2, 3])
      print("ready \(getpid())")
      fflush(nil)
      try await Task.sleep(for: .seconds(600))
      withExtendedLifetime(object) {}
    case "broadcasts": try await broadcasts(cluster)
    case "directory": try await directory(cluster)
    default: throw Failure("SCENARIO is not one of those that the test app has")
    }
    print("done")
  }
}

struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

func check(_ condition: Bool, _ what: String) throws {
  guard condition else { throw Failure("wrong: \(what)") }
}

/// Waits until a condition holds, for what happens soon after and not at once.
func eventually(_ what: String, _ condition: () async throws -> Bool) async throws {
  for _ in 0..<500 {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(20))
  }
  throw Failure("did not happen within 10 seconds: \(what)")
}

func failure<Thrown: Error>(
  of body: () async throws -> Void, as type: Thrown.Type = MobulaError.self
) async throws -> Thrown {
  do {
    try await body()
  } catch let error as Thrown {
    return error
  }
  throw Failure("nothing was thrown where an error was due")
}

// MARK: - Tasks

struct Add: RemoteTask {
  var a: ObjectRef<Int>
  var b: ObjectRef<Int>
  func run(in context: TaskContext) async throws -> Int { try await a.value + b.value }
}

struct WhereAmI: RemoteTask {
  func run(in context: TaskContext) async throws -> String { "\(context.podName) \(getpid())" }
}

struct Fail: RemoteTask {
  var reason: String
  func run(in context: TaskContext) async throws -> Int { throw Failure(reason) }
}

/// A task that starts another, and returns the reference to its result.
struct Nested: RemoteTask {
  func run(in context: TaskContext) async throws -> ObjectRef<Int> {
    let one = try await context.cluster.put(1)
    let two = try await context.cluster.put(2)
    return try context.cluster.submit(Add(a: one, b: two), .resources(cpu: 0))
  }
}

struct Model: Codable, Sendable, Equatable {
  var name: String
  var layers: [String: Blob]
}

struct MakeModel: RemoteTask {
  var bytes: Int
  func run(in context: TaskContext) async throws -> Model {
    Model(
      name: "m", layers: ["a": Blob([UInt8](repeating: 7, count: bytes)), "b": Blob([]), "c": Blob([1, 2, 3])])
  }
}

func tasks(_ cluster: Cluster) async throws {
  let three = try await cluster.put(3)
  let four = try await cluster.put(4)
  let seven = try cluster.submit(Add(a: three, b: four), .resources(cpu: 0))
  let ten = try cluster.submit(Add(a: seven, b: three), .resources(cpu: 0))
  try check(try await ten.value == 10, "3 + 4 + 3")

  let places = try await cluster.submit(WhereAmI(), .resources(["special": 1], cpu: 0)).value
  try check(places.hasPrefix("other "), "the pod that has the custom resource ran it: \(places)")

  let error = try await failure(
    of: { _ = try await cluster.submit(Fail(reason: "on purpose"), .resources(cpu: 0)).value }, as: WorkError.self)
  try check(error.message == "on purpose" && error.work == "Fail", "the task's error: \(error)")

  let inner = try await cluster.submit(Nested(), .resources(cpu: 0)).value
  try check(try await inner.value == 3, "a nested task's result")

  let model = try await cluster.submit(MakeModel(bytes: 3_000_001), .resources(cpu: 0)).value
  try check(model.layers["a"]?.count == 3_000_001 && model.layers["b"]?.count == 0, "sizes of a model's blobs")
  let blob = model.layers["a"]!
  try check(
    blob.withUnsafeBytes { bytes in Int(bitPattern: bytes.baseAddress) % 64 == 0 && bytes.allSatisfy { $0 == 7 } },
    "a blob is aligned, and its bytes are right")
  let back = try await cluster.put(model).value
  try check(back == model, "a value with blobs, put again")

  let many = try await withThrowingTaskGroup(of: Int.self) { group in
    for _ in 0..<20 { group.addTask { try await cluster.submit(Add(a: three, b: four), .resources(cpu: 0.1)).value } }
    var sum = 0
    for try await value in group { sum += value }
    return sum
  }
  try check(many == 140, "twenty tasks at a time")

  let never = try await cluster.put(1)
  let (ready, pending) = try await cluster.wait(for: [never], timeout: .seconds(5))
  try check(ready.count == 1 && pending.isEmpty, "wait finds what is there")

  var options = cluster.options
  options.workDeadline = .seconds(1)
  let impatient = try await Cluster.connect(options)
  let lease = try await failure {
    _ = try await impatient.submit(WhereAmI(), .resources(["unobtainium": 1], cpu: 0)).value
  }
  try check(lease.message.contains("unobtainium"), "nobody has the resource: \(lease)")
  await impatient.close()
}

// MARK: - Actors

distributed actor Counter: RemoteActor {
  typealias ActorSystem = Cluster
  private var count: Int
  private var kept: ObjectRef<[Int]>?

  init(configuration: Int, actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    guard configuration >= 0 else { throw Failure("a counter starts at 0 or more") }
    count = configuration
  }

  distributed func add(_ n: Int) -> Int {
    count += n
    return count
  }
  distributed func process() -> Int32 { getpid() }
  distributed func pair<A: Codable & Sendable, B: Codable & Sendable>(_ a: A, _ b: B) -> [String] { ["\(a)", "\(b)"] }
  distributed func fail() throws -> Int { throw Failure("the counter fails") }
  distributed func overflow() throws -> Int { throw Refusal.tooMany(3) }
  distributed func forget() { kept = nil }
  distributed func keep(_ reference: ObjectRef<[Int]>) { kept = reference }
  distributed func readKept() async throws -> [Int] { try await kept!.value }
  /// A reference that only the reply carries.
  distributed func make(_ value: [Int]) async throws -> ObjectRef<[Int]> { try await actorSystem.put(value) }
  distributed func addThrough(_ other: Counter, _ n: Int) async throws -> Int { try await other.add(n) }
  distributed func die() { kill(getpid(), SIGKILL) }
}

func actors(_ cluster: Cluster) async throws {
  let counter = try await cluster.spawn(Counter.self, with: 5, .resources(cpu: 0))
  let sums = [try await counter.add(2), try await counter.add(3)]
  try check(sums == [7, 10], "an actor keeps its state: \(sums)")
  try check(try await counter.pair("x", 3) == ["x", "3"], "generic arguments")
  try check(try await counter.process() != getpid(), "it lives in another process")

  let error = try await failure(of: { _ = try await counter.fail() }, as: WorkError.self)
  try check(error.message == "the counter fails" && error.type == "Failure", "its error: \(error)")
  try check(error.work.contains("Counter.fail()") && !error.work.contains("$s"), "as people write it: \(error)")
  let thrown = try await failure(of: { _ = try await counter.overflow() }, as: Refusal.self)
  try check(thrown == .tooMany(3), "what it throws arrives as it was: \(thrown)")
  let refused = try await failure { _ = try await cluster.spawn(Counter.self, with: -1, .resources(cpu: 0)) }
  try check(refused.message.contains("0 or more"), "its init's error: \(refused)")

  let other = try await cluster.spawn(Counter.self, with: 0, .resources(cpu: 0))
  try check(try await other.addThrough(counter, 1) == 11, "an actor calls another")
  let made = try await counter.make([1, 2, 3])
  try check(try await made.value == [1, 2, 3], "a reference that only a reply carried")

  try await cluster.stop(other)
  let gone = try await failure { _ = try await other.add(1) }
  try check(gone.code == .actorDied && gone.message.contains("stopped"), "a stopped actor is gone: \(gone)")
}

// MARK: - Holds

func objects(_ cluster: Cluster) async throws -> Set<ObjectID> { Set(try await cluster.list().map(\.object)) }

func holds(_ cluster: Cluster) async throws {
  let counter = try await cluster.spawn(Counter.self, with: 0, .resources(cpu: 0))
  var first: ObjectRef<[Int]>? = try await cluster.put([1, 2])
  let id = first!.id
  try await counter.keep(first!)
  first = nil
  // Long enough for a release that is sent at once to have done its harm.
  try await Task.sleep(for: .milliseconds(300))
  try check(try await objects(cluster).contains(id), "an object that another process holds stays")
  try check(try await counter.readKept() == [1, 2], "and can be read there")
  try await counter.forget()
  try await eventually("an object that nobody holds goes") { try await !objects(cluster).contains(id) }

  var inside: ObjectRef<[Int]>? = try await cluster.put([9])
  let insideID = inside!.id
  var outside: ObjectRef<[ObjectRef<[Int]>]>? = try await cluster.put([inside!])
  inside = nil
  try await Task.sleep(for: .milliseconds(300))
  try check(try await objects(cluster).contains(insideID), "an object inside another is held by it")
  let again = try await outside!.value
  try check(try await again[0].value == [9], "and can be read through it")
  outside = nil
  try await Task.sleep(for: .milliseconds(300))
  try check(try await objects(cluster).contains(insideID), "who decoded the reference holds the object itself")
  try check(try await again[0].value == [9], "and reads it")

  // References that were found in an object are there as long as somebody has them, also without it.
  var found: [ObjectRef<[Int]>] = []
  var third: ObjectID?
  do {
    let inner = [try await cluster.put([1]), try await cluster.put([2]), try await cluster.put([3])]
    let container = try await cluster.put(inner)
    third = inner[2].id
    found = Array(try await container.value.prefix(2))
  }
  try await eventually("what nobody found goes") { try await !objects(cluster).contains(third!) }
  try await Task.sleep(for: .milliseconds(300))
  try check(try await cluster.values(found) == [[1], [2]], "what was found is there without its container")
  try await counter.keep(found[1])
  let second = found[1].id
  found = []
  try await Task.sleep(for: .milliseconds(300))
  try check(try await counter.readKept() == [2], "what was found and passed on")
  try await counter.forget()
  try await eventually("and goes with its last reference") { try await !objects(cluster).contains(second) }

  let kept = try await cluster.put([5])
  try await counter.keep(kept)
  let keptID = kept.id
  try await cluster.stop(counter)
  try check(try await objects(cluster).contains(keptID), "a dead process's hold does not matter to another's")
  try await cluster.name(kept, "named by the test")
}

// MARK: - Losses

struct DieOnce: RemoteTask {
  var marker: String
  func run(in context: TaskContext) async throws -> Int32 {
    if access(marker, F_OK) != 0 {
      let file = open(marker, O_CREAT | O_WRONLY, 0o600)
      close(file)
      kill(getpid(), SIGKILL)
      try await Task.sleep(for: .seconds(60))
    }
    return getpid()
  }
}

struct AlwaysDie: RemoteTask {
  func run(in context: TaskContext) async throws -> Int {
    kill(getpid(), SIGKILL)
    try await Task.sleep(for: .seconds(60))
    return 0
  }
}

func losses(_ cluster: Cluster) async throws {
  let marker = currentEnvironment()["MARKER"] ?? ""
  let process = try await cluster.submit(DieOnce(marker: marker), .resources(cpu: 0)).value
  try check(process > 0, "a task whose worker was killed ran again")
  let lost = try await failure { _ = try await cluster.submit(AlwaysDie(), .resources(cpu: 0)).value }
  try check(
    lost.code == .workerLost && lost.mayHaveRun && lost.message.contains("4 times"),
    "a task that kills every worker ends in an error: \(lost)")

  let counter = try await cluster.spawn(Counter.self, with: 0, .resources(cpu: 0))
  let gone = try await failure { try await counter.die() }
  try check(gone.code == .actorDied && gone.mayHaveRun, "a killed actor's call ends: \(gone)")
  let after = try await failure { _ = try await counter.add(1) }
  try check(after.code == .actorDied && !after.mayHaveRun, "and so does the next: \(after)")
}

// MARK: - The host's process dies

/// Holds a model, and goes on while the store's process is away.
distributed actor Keeper: RemoteActor {
  typealias ActorSystem = Cluster
  private var model: Blob?

  init(configuration: Int, actorSystem: Cluster) async throws { self.actorSystem = actorSystem }

  distributed func keep(_ model: ObjectRef<Blob>) async throws -> Int {
    self.model = try await model.value
    return self.model!.count
  }

  distributed func sum() -> Int { model!.withUnsafeBytes { $0.reduce(0) { $0 &+ Int($1) } } }

  distributed func put(_ number: Int) async throws -> ObjectRef<Int> { try await actorSystem.put(number) }
}

/// Kills the store's process; the supervisor starts it again.
func killHost() throws { kill(try process(of: "host"), SIGKILL) }

/// The process of a role in this machine's host: `head`, `host` or `pod`.
func process(of role: String) throws -> Int32 {
  let directory = currentEnvironment()["MOBULA_DIRECTORY"] ?? ""
  for entry in try FileManager.default.contentsOfDirectory(atPath: "/proc") {
    guard let pid = Int32(entry), let data = try? Data(contentsOf: URL(filePath: "/proc/\(pid)/cmdline")) else {
      continue
    }
    let arguments = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    if arguments.count > 3, arguments[1] == role, arguments.suffix(2) == ["--directory", directory] { return pid }
  }
  throw Failure("no \(role) runs in \(directory)")
}

func outage(_ cluster: Cluster) async throws {
  let bytes = (0..<5_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
  let sum = bytes.reduce(0) { $0 &+ Int($1) }
  let model = try await cluster.put(Blob(bytes))
  let view = try await model.value
  var numbers: [ObjectRef<Int>] = []
  for number in 0..<100 { numbers.append(try await cluster.put(number)) }
  let keeper = try await cluster.spawn(Keeper.self, with: 1, .resources())
  try check(try await keeper.keep(model) == bytes.count, "the actor has the model")
  for round in 0..<3 {
    try killHost()
    // What is mapped stays, puts wait, and everything is there again.
    try check(view.withUnsafeBytes { $0.reduce(0) { $0 &+ Int($1) } } == sum, "the view is as it was")
    try check(try await keeper.sum() == sum, "the actor's view is as it was")
    for number in 0..<100 { numbers.append(try await cluster.put(1000 * (round + 1) + number)) }
    let big = try await cluster.put(Blob([UInt8](repeating: UInt8(round), count: 20_000_000)))
    try check(try await big.value.count == 20_000_000, "a big object after the outage")
    let theirs = try await keeper.put(42 + round)
    try check(try await theirs.value == 42 + round, "the worker puts after the outage")
    for (index, reference) in numbers.enumerated() {
      let expected = index < 100 ? index : 1000 * (index / 100) + index % 100
      try check(try await reference.value == expected, "number \(index) after outage \(round)")
    }
    try check(try await model.fetched().digest == model.fetched().digest, "the host knows the digest")
  }
}
