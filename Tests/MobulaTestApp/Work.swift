import Distributed
import FoundationEssentials
import Glibc
import Mobula
import MobulaCore

// What tasks are told, how they fail, and work that waits for work.

/// An error that arrives as it was thrown.
enum Refusal: Error, Codable, Equatable {
  case tooMany(Int)
}

struct Refuse: RemoteTask {
  var count: Int
  func run(in context: TaskContext) async throws -> Int {
    print("refusing \(count)")
    throw Refusal.tooMany(count)
  }
}

/// Fails until it has been tried so often.
struct Stubborn: RemoteTask {
  var marker: String
  var times: Int
  func run(in context: TaskContext) async throws -> Int {
    let attempt = try append(marker)
    if attempt < times { throw Refusal.tooMany(attempt) }
    return attempt
  }
}

/// Adds a byte to a file.
func append(_ path: String) throws -> Int {
  let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
  defer { close(file) }
  guard file >= 0, write(file, "x", 1) == 1 else { throw Failure("\(path) can't be written") }
  return Int(lseek(file, 0, SEEK_END))
}

func size(of path: String) -> Int {
  var status = stat()
  return stat(path, &status) == 0 ? Int(status.st_size) : 0
}

struct Touch: RemoteAction {
  var path: String
  static var options: TaskOptions { .resources(cpu: 0.5) }
  func perform(in context: TaskContext) async throws { _ = try append(path) }
}

/// Sleeps as Swift tasks do, which end when they are cancelled, or as others do.
struct Sleep: RemoteTask {
  var seconds: Double
  var begun: String
  var ends = true
  func run(in context: TaskContext) async throws -> Int {
    _ = try append(begun)
    if ends { try await Task.sleep(for: .seconds(seconds)) } else { usleep(UInt32(seconds * 1e6)) }
    return 1
  }
}

/// Submits another and waits for it.
struct Parent: RemoteTask {
  var begun: String
  var ended: String
  func run(in context: TaskContext) async throws -> Int {
    let child = try context.cluster.submit(Child(begun: begun, ended: ended))
    return try await child.value
  }
}

struct Child: RemoteTask {
  var begun: String
  var ended: String
  func run(in context: TaskContext) async throws -> Int {
    _ = try append(begun)
    do { try await Task.sleep(for: .seconds(60)) } catch {
      _ = try append(ended)
      throw error
    }
    return 1
  }
}

struct Variable: RemoteTask {
  var name: String
  func run(in context: TaskContext) async throws -> String { currentEnvironment()[name] ?? "" }
}

struct Square: RemoteTask {
  var number: Int
  func run(in context: TaskContext) async throws -> Int {
    if number % 7 == 0 { try await Task.sleep(for: .milliseconds(20)) }
    return number * number
  }
}

/// A result that goes into the store.
struct Large: RemoteTask {
  var size: Int
  func run(in context: TaskContext) async throws -> Blob { Blob([UInt8](repeating: 3, count: size)) }
}

/// Makes a large result, and has its worker die before it has said so, at its first attempt.
struct LargeOnce: RemoteTask {
  var marker: String
  func run(in context: TaskContext) async throws -> LargeValue { LargeValue(marker: marker) }
}

struct LargeValue: Codable, Sendable {
  var blob = Blob([UInt8](repeating: 9, count: 500_000))

  init(marker: String) {
    guard access(marker, F_OK) != 0 else { return }
    close(open(marker, O_CREAT | O_WRONLY, 0o600))
    // About as long as it takes until the result is in the store.
    let delay = UInt32.random(in: 100..<6_000)
    Task.detached {
      usleep(delay)
      kill(getpid(), SIGKILL)
    }
  }
}

struct Numbers: RemoteTask {
  var count: Int
  var after: Double
  func run(in context: TaskContext) async throws -> [Int] {
    try await Task.sleep(for: .seconds(after))
    return Array(0..<count)
  }
}

func options(_ cluster: Cluster) async throws {
  let folder = (currentEnvironment()["MARKER"] ?? "") + "-"
  @Sendable func path(_ name: String) -> String { folder + name }

  // Results, and none.
  try check(try await cluster.run(Square(number: 9)) == 81, "run")
  try await cluster.run(Touch(path: path("touched")))
  try check(size(of: path("touched")) == 1, "an action has run")

  // Errors as they were.
  let refused = try await failure(of: { _ = try await cluster.run(Refuse(count: 7)) }, as: WorkError.self)
  try check(refused.cause(as: Refusal.self) == .tooMany(7), "the cause: \(refused)")
  try check(refused.cause(as: MobulaError.self) == nil, "another type is no cause")
  try check(refused.type == "Refusal" && refused.work == "Refuse" && refused.attempt == 1, "\(refused)")
  try check(!refused.host.isEmpty && !refused.pod.isEmpty && refused.log.contains("refusing 7"), "\(refused.log)")
  // What needs its result fails with it, and does not run.
  let needy = try await failure(
    of: {
      let first = try cluster.submit(Refuse(count: 8))
      let second = try cluster.submit(Add(a: first, b: first))
      _ = try await cluster.submit(Add(a: second, b: second)).value
    }, as: WorkError.self)
  try check(needy.work == "Refuse" && needy.cause(as: Refusal.self) == .tooMany(8), "an argument's error: \(needy)")
  // One that waits for it by itself has an error of its own, with that as its cause.
  var asTheyCome = TaskOptions.resources(cpu: 0)
  asTheyCome.arguments = .asTheyCome
  let outer = try await failure(
    of: {
      let first = try cluster.submit(Refuse(count: 9))
      _ = try await cluster.run(Add(a: first, b: first), asTheyCome)
    }, as: WorkError.self)
  try check(outer.work == "Add" && outer.cause(as: Refusal.self) == .tooMany(9), "an inner error: \(outer)")

  // Retries of errors that are worth it.
  var retried = TaskOptions.resources(cpu: 0)
  retried.retries = .never.and(3, when: { $0.cause(as: Refusal.self) != nil })
  try check(try await cluster.run(Stubborn(marker: path("stubborn"), times: 3), retried) == 3, "the third attempt")
  retried.retries = .never.and(1, when: { _ in true })
  let often = try await failure(
    of: { _ = try await cluster.run(Stubborn(marker: path("often"), times: 9), retried) }, as: WorkError.self)
  try check(often.attempt == 2 && size(of: path("often")) == 2, "two attempts: \(often)")
  retried.retries = .never.and(3, when: { _ in false })
  _ = try await failure(
    of: { _ = try await cluster.run(Stubborn(marker: path("once"), times: 9), retried) }, as: WorkError.self)
  try check(size(of: path("once")) == 1, "one attempt")

  // Limits.
  var limited = TaskOptions.resources(cpu: 0.1)
  limited.timeout = .milliseconds(300)
  let slow = try await failure { _ = try await cluster.run(Sleep(seconds: 30, begun: path("slow")), limited) }
  try check(slow.code == .deadlineExceeded && slow.message.contains("0.3 seconds"), "a timeout: \(slow)")
  limited = .resources(["unobtainium": 1])
  limited.schedulingLimit = .milliseconds(300)
  let nowhere = try await failure { _ = try await cluster.run(Square(number: 1), limited) }
  try check(nowhere.code == .unschedulable && nowhere.message.contains("unobtainium"), "a limit: \(nowhere)")
  limited.schedulingLimit = nil
  limited.deadline = .milliseconds(300)
  let late = try await failure { _ = try await cluster.run(Square(number: 1), limited) }
  try check(late.code == .deadlineExceeded, "a deadline: \(late)")

  // Cancelling.
  let waiting = try cluster.submit(Square(number: 1), .resources(["unobtainium": 1]))
  waiting.cancel()
  waiting.cancel()
  try check(try await failure { _ = try await waiting.value }.code == .cancelled, "what waits")
  let running = try cluster.submit(Sleep(seconds: 60, begun: path("running")))
  try await eventually("it runs") { size(of: path("running")) == 1 }
  running.cancel()
  try check(try await failure { _ = try await running.value }.code == .cancelled, "what runs")
  let deaf = try cluster.submit(Sleep(seconds: 60, begun: path("deaf"), ends: false))
  try await eventually("it runs") { size(of: path("deaf")) == 1 }
  deaf.cancel(force: .after(.milliseconds(100)))
  try check(try await failure { _ = try await deaf.value }.code == .cancelled, "what doesn't listen")
  try check(size(of: path("deaf")) == 1, "it does not run again")
  let parent = try cluster.submit(Parent(begun: path("begun"), ended: path("ended")))
  try await eventually("the child runs") { size(of: path("begun")) == 1 }
  parent.cancel()
  try check(try await failure { _ = try await parent.value }.code == .cancelled, "a parent")
  try await eventually("the child has ended") { size(of: path("ended")) == 1 }
  // Structured: who is cancelled takes it along.
  let structured = Task { try await cluster.run(Parent(begun: path("begun"), ended: path("ended"))) }
  try await eventually("the child runs") { size(of: path("begun")) == 2 }
  structured.cancel()
  do {
    _ = try await structured.value
    throw Failure("a cancelled run has a result")
  } catch is CancellationError {
  }
  try await eventually("the child has ended") { size(of: path("ended")) == 2 }

  // At once, before a worker can have begun, or just when it does.
  for round in 0..<100 {
    _ = try await cluster.run(Square(number: 2))
    let never = try cluster.submit(Sleep(seconds: 60, begun: path("at-once")))
    if round % 2 == 0 { usleep(UInt32(round)) }
    never.cancel()
    let error = try await failure { _ = try await never.value(within: .seconds(10)) }
    try check(error.code == .cancelled, "cancelled at once, round \(round): \(error)")
  }

  // The environment, and what can't be meant.
  var environment = TaskOptions()
  environment.environment = ["COLOUR": "blue"]
  try check(try await cluster.run(Variable(name: "COLOUR"), environment) == "blue", "a variable")
  try check(try await cluster.run(Variable(name: "COLOUR")) == "", "nobody else's")
  for wrong: Resources in [["CPU": -1], ["CPU": ResourceAmount(1e30)]] {
    let error = try await failure { _ = try cluster.submit(Square(number: 1), .resources(wrong, cpu: wrong["CPU"])) }
    try check(error.code == .invalidArgument, "\(wrong): \(error)")
  }
  struct Local: RemoteTask {
    func run(in context: TaskContext) async throws -> Int { 1 }
  }
  let local = try await failure { _ = try cluster.submit(Local()) }
  try check(local.message.contains("outside of functions"), "a local type: \(local)")

  // Many.
  let squares = try (0..<200).map { try cluster.submit(Square(number: $0)) }
  var seen: Set<Int> = []
  for await (_, result) in cluster.results(of: squares) { seen.insert(try result.get()) }
  try check(seen == Set((0..<200).map { $0 * $0 }), "results as they come")
  for await _ in cluster.results(of: [ObjectRef<Int>]()) { throw Failure("a result of nothing") }
  var patient = TaskOptions()
  (patient.deadline, patient.timeout) = (.seconds(Int64.max), .seconds(Int64.max))
  try check(try await cluster.run(Square(number: 6), patient) == 36, "limits beyond all time")
  let fewer = try await failure { _ = try await cluster.spawn(Counter.self, count: -1, with: 0) }
  try check(fewer.code == .invalidArgument, "fewer than none: \(fewer)")
  try check(try await cluster.values(squares) == (0..<200).map { $0 * $0 }, "values")
  let (number, text) = try await cluster.values(squares[3], cluster.submit(Variable(name: "PATH")))
  try check(number == 9 && !text.isEmpty, "values of two types")
  var ordered: [Int] = []
  for try await square in cluster.map(0..<300, limit: 20, { Square(number: $0) }) { ordered.append(square) }
  try check(ordered == (0..<300).map { $0 * $0 }, "a map in order")
  var unordered: Set<Int> = []
  for try await square in cluster.map(0..<300, limit: 20, ordered: false, { Square(number: $0) }) {
    unordered.insert(square)
  }
  try check(unordered == Set((0..<300).map { $0 * $0 }), "a map in any order")
  // Results are there before the next input is.
  let (inputs, more) = AsyncStream.makeStream(of: Int.self)
  more.yield(1)
  var lastSquare = 0
  for try await square in cluster.map(inputs, { Square(number: $0) }) {
    lastSquare = square
    if square < 1_000 { more.yield(square + 1) } else { more.finish() }
  }
  try check(lastSquare == 458_329, "a map whose inputs follow from its results: \(lastSquare)")
  // One that is left ends what it has begun.
  for try await _ in cluster.map(0..<10, { _ in Sleep(seconds: 0.01, begun: path("left")) }) { break }
  let first = try await cluster.wait(for: squares)
  try check(!first.ready.isEmpty && first.ready.count + first.pending.count == 200, "wait for one")

  // One that was passed on is made for who has it, whatever becomes of this process's reference.
  let counter = try await cluster.spawn(Counter.self, with: 0)
  for size in [10, 100_000] {
    var slow: ObjectRef<[Int]>? = try cluster.submit(Numbers(count: size, after: 0.3))
    try await counter.keep(slow!)
    slow = nil
    try check(try await counter.readKept().count == size, "\(size) numbers that were passed on before they were there")
  }
  try await cluster.stop(counter)

  // Large results on another host.
  let places = try await cluster.status().hosts.map(\.host)
  for host in places {
    for size in [99_000, 101_000, 3_000_000] {
      let blob = try await cluster.run(Large(size: size), .resources(cpu: 0.1, placement: .host(host)))
      try check(
        blob.count == size && blob.withUnsafeBytes { $0.allSatisfy { $0 == 3 } }, "\(size) bytes from \(host.short)")
    }
    for round in 0..<10 {
      let marker = path("large-\(host.short)-\(round)")
      let reference = try cluster.submit(LargeOnce(marker: marker), .resources(cpu: 0.1, placement: .host(host)))
      let blob = try await reference.value(within: .seconds(30)).blob
      try check(
        blob.count == 500_000 && blob.withUnsafeBytes { $0.allSatisfy { $0 == 9 } },
        "a result whose worker died, round \(round)")
    }
  }
}

// MARK: - Work that waits for work

/// Waits for one like itself, so deep.
struct Depth: RemoteTask {
  var depth: Int
  func run(in context: TaskContext) async throws -> Int {
    if depth == 0 { return 0 }
    return try await context.cluster.submit(Depth(depth: depth - 1)).value + 1
  }
}

struct Fibonacci: RemoteTask {
  var number: Int
  func run(in context: TaskContext) async throws -> Int {
    if number < 2 { return number }
    async let one = context.cluster.run(Fibonacci(number: number - 1))
    async let two = context.cluster.run(Fibonacci(number: number - 2))
    return try await one + two
  }
}

/// Waits for one that needs all CPUs of a pod.
struct Greedy: RemoteTask {
  var cpu: Int
  func run(in context: TaskContext) async throws -> Int {
    try await context.cluster.run(Square(number: 5), .resources(cpu: ResourceAmount(cpu)))
  }
}

/// Waits for an actor that needs a CPU, and for what that one does.
struct Employer: RemoteTask {
  func run(in context: TaskContext) async throws -> Int {
    let counter = try await context.cluster.spawn(Counter.self, with: 1, .resources(cpu: 1))
    let sum = try await counter.add(2)
    try await context.cluster.stop(counter)
    return sum
  }
}

/// Waits for one that can't run where it does.
struct Stranger: RemoteTask {
  func run(in context: TaskContext) async throws -> String {
    var options = TaskOptions()
    options.environment = ["COLOUR": "green"]
    return try await context.cluster.run(Variable(name: "COLOUR"), options)
  }
}

/// Returns what it has not waited for.
struct Absent: RemoteTask {
  func run(in context: TaskContext) async throws -> ObjectRef<[Int]> {
    try context.cluster.submit(Numbers(count: 3, after: 13), .resources(cpu: 0))
  }
}

/// Waits for something that is not its own.
struct Patient: RemoteTask {
  var object: ObjectRef<Int>
  func run(in context: TaskContext) async throws -> Int { try await object.value }
}

/// On pods of one CPU: nothing ever hangs.
func waits(_ cluster: Cluster) async throws {
  // Its worker is idle for long before that has ended.
  let absent = try cluster.submit(Absent(), .resources(cpu: 0))
  try check(try await cluster.run(Depth(depth: 1_000)) == 1_000, "a thousand deep")
  try check(try await cluster.run(Fibonacci(number: 14)) == 377, "a tree")
  let both = try (0..<8).map { _ in try cluster.submit(Depth(depth: 3)) }
  try check(try await cluster.values(both) == Array(repeating: 3, count: 8), "more that wait than there are CPUs")
  try check(try await cluster.run(Greedy(cpu: 2)) == 25, "one that needs what its parent has")
  let greedy = try (0..<6).map { _ in try cluster.submit(Greedy(cpu: 2)) }
  try check(try await cluster.values(greedy) == Array(repeating: 25, count: 6), "several of them")
  let employers = try (0..<6).map { _ in try cluster.submit(Employer()) }
  try check(try await cluster.values(employers) == Array(repeating: 3, count: 6), "actors that need their CPUs")
  let strangers = try (0..<20).map { _ in try cluster.submit(Stranger()) }
  try check(
    try await cluster.values(strangers) == Array(repeating: "green", count: 20), "children with workers of their own")
  // All CPUs wait for what comes behind them.
  var asTheyCome = TaskOptions()
  asTheyCome.arguments = .asTheyCome
  asTheyCome.placement = .spread
  let gate = (currentEnvironment()["MARKER"] ?? "") + "-gate"
  let later = try cluster.submit(Sleep(seconds: 1, begun: gate))
  let patient = try (0..<10).map { _ in try cluster.submit(Patient(object: later), asTheyCome) }
  try check(try await cluster.values(patient) == Array(repeating: 1, count: 10), "what waits for a task before it")
  try check(try await absent.value.value == [0, 1, 2], "what a task has left behind")
}

/// What nobody has says so, and fails at its limit with what would help.
func starved(_ cluster: Cluster) async throws {
  var options = TaskOptions.resources(["unobtainium": 2])
  options.schedulingLimit = .seconds(3)
  let waiting = try (0..<3).map { try cluster.submit(Square(number: $0), options) }
  for reference in waiting {
    let error = try await failure { _ = try await reference.value }
    try check(
      error.code == .unschedulable && error.message.contains("start a host with `--resources unobtainium=2`"),
      "\(error)")
  }
}

// MARK: - Calls of actors

/// Notes what it is told, in the order in which it hears it.
distributed actor Ear: RemoteActor {
  typealias ActorSystem = Cluster
  private var heard = 0
  private var misheard = 0
  private var inside = 0
  private var most = 0
  private var cancelled = 0

  init(configuration: Int, actorSystem: Cluster) async throws { self.actorSystem = actorSystem }

  distributed func hear(_ number: Int) {
    if number != heard { misheard += 1 }
    heard += 1
  }
  distributed func hearing() -> [Int] { [heard, misheard] }
  distributed func forget() { (heard, misheard) = (0, 0) }
  distributed func echo<Value: Codable & Sendable>(_ value: Value) -> Value { value }
  distributed func refuse() throws -> Int { throw Refusal.tooMany(5) }
  distributed func nap() async throws -> Int {
    inside += 1
    most = max(most, inside)
    defer { inside -= 1 }
    do { try await Task.sleep(for: .milliseconds(5)) } catch {
      cancelled += 1
      throw error
    }
    return most
  }
  distributed func sleep(_ seconds: Double) async throws {
    do { try await Task.sleep(for: .seconds(seconds)) } catch {
      cancelled += 1
      throw error
    }
  }
  distributed func cancellations() -> Int { cancelled }
  distributed func large(_ size: Int) -> Blob { Blob([UInt8](repeating: 5, count: size)) }
  distributed func made() async throws -> [ObjectRef<Int>] {
    [try await actorSystem.put(6), try await actorSystem.put(7)]
  }
  distributed func process() -> Int32 { getpid() }
  distributed func die() { kill(getpid(), SIGKILL) }
}

/// Calls an actor that it was given.
struct Caller: RemoteTask {
  var ear: Ear
  func run(in context: TaskContext) async throws -> [Int] { try await ear.echo([1, 2]) }
}

func calls(_ cluster: Cluster) async throws {
  let count = currentEnvironment()["CALLS"].flatMap { Int($0) } ?? 100_000
  let ear = try await cluster.spawn(Ear.self, with: 0)
  for number in 0..<count { try await ear.submit { try await $0.hear(number) } }
  try check(try await ear.hearing() == [count, 0], "calls in their order: \(try await ear.hearing())")
  // Also those that are made before there is a connection, from another process's point of view.
  let other = try await cluster.spawn(Ear.self, with: 0)
  for number in 0..<100 { try await other.submit { try await $0.hear(number) } }
  let last = try await other.submit { try await $0.hearing() }
  try check(try await last.value == [100, 0], "the first calls in their order")

  try check(try await ear.submit { try await $0.echo("x") }.value == "x", "a generic call")
  let thrown = try await failure(of: { _ = try await ear.refuse() }, as: Refusal.self)
  try check(thrown == .tooMany(5), "an error as it was")
  let kept = try await failure(of: { _ = try await ear.submit { try await $0.refuse() }.value }, as: WorkError.self)
  try check(kept.cause(as: Refusal.self) == .tooMany(5) && kept.work.contains("refuse"), "a reference's error: \(kept)")

  for size in [10, 99_000, 101_000, 3_000_000] {
    let blob = try await ear.large(size)
    try check(blob.count == size && blob.withUnsafeBytes { $0.allSatisfy { $0 == 5 } }, "\(size) bytes")
    let again = try await ear.submit { try await $0.large(size) }.value
    try check(again == blob, "\(size) bytes, by reference")
  }
  let made = try await ear.made()
  try check(try await cluster.values(made) == [6, 7], "references in a result")

  // Reentrant, as Swift's actors are, or one at a time.
  func naps(_ ear: Ear) async throws -> Int {
    try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<20 { group.addTask { try await ear.nap() } }
      return try await group.reduce(0) { max($0, $1) }
    }
  }
  try check(try await naps(ear) > 1, "reentrant")
  for limit in [1, 3] {
    var options = ActorOptions()
    options.concurrency = limit == 1 ? .serial : .reentrant(limit: limit)
    try await cluster.withActor(Ear.self, with: 0, options) { ear in
      try check(try await naps(ear) == limit, "at most \(limit) at a time")
    }
  }

  // Limits, and ends.
  let late = try await failure {
    try await Call.with(.timeout(.milliseconds(100))) { try await ear.sleep(60) }
  }
  try check(late.code == .deadlineExceeded && late.mayHaveRun, "a timeout: \(late)")
  try await eventually("it was cancelled there") { try await ear.cancellations() == 1 }
  let waiting = Task { try await ear.sleep(60) }
  try await Task.sleep(for: .milliseconds(50))
  waiting.cancel()
  do {
    try await waiting.value
    throw Failure("a cancelled call has a result")
  } catch is CancellationError {
  }
  try await eventually("it was cancelled there") { try await ear.cancellations() == 2 }
  let submitted = try await ear.submit { try await $0.sleep(60) }
  try await Task.sleep(for: .milliseconds(50))
  submitted.cancel()
  try check(try await failure { _ = try await submitted.value }.code == .cancelled, "a cancelled reference")

  // What stands behind another call never begins when it is cancelled, and is told so at once.
  var serial = ActorOptions()
  serial.concurrency = .serial
  try await cluster.withActor(Ear.self, with: 0, serial) { ear in
    let sleeping = try await ear.submit { try await $0.sleep(60) }
    let behind = try await ear.submit { try await $0.hear(0) }
    let more = try await ear.submit { try await $0.hear(0) }
    try await Task.sleep(for: .milliseconds(50))
    behind.cancel()
    try check(
      try await failure { _ = try await behind.value(within: .seconds(10)) }.code == .cancelled, "a call behind another"
    )
    sleeping.cancel()
    _ = try await more.value
    try check(try await ear.hearing()[0] == 1, "it never began")
  }

  // Handles travel; those of a driver don't.
  try check(try await cluster.run(Caller(ear: ear)) == [1, 2], "a handle in a task")
  let mine = try await Ear(configuration: 0, actorSystem: cluster)
  try check(try await mine.echo(3) == 3, "an actor of this process")
  let refused = try await failure { _ = try cluster.submit(Caller(ear: mine)) }
  try check(refused.code == .invalidArgument && refused.message.contains("Cluster.spawn"), "\(refused)")
  try check(try await mine.submit { try await $0.echo(4) }.value == 4, "a call of an actor of this process")
  let counter = try await cluster.spawn(Counter.self, with: 5)
  let own = try await Counter(configuration: 0, actorSystem: cluster)
  let through = try await own.submit { try await $0.addThrough(counter, 2) }
  try check(try await through.value == 7, "an actor of this process calls another in its call")
  let sum = try await counter.submit { try await $0.add(try await own.add(3)) }
  try check(try await sum.value == 10, "an argument that another actor answers")
  let nothing = try await failure { try await counter.submit { _ in 3 } }
  try check(nothing.code == .invalidArgument, "nothing is called: \(nothing)")

  // Several of them.
  let pool = ActorPool(try await cluster.spawn(Ear.self, count: 3, with: 0))
  var processes: Set<Int32> = []
  for try await process in pool.map(
    0..<60,
    { ear, _ in
      _ = try await ear.nap()
      return try await ear.process()
    })
  { processes.insert(process) }
  try check(processes.count == 3, "all actors of a pool work: \(processes)")
  var ordered: [Int] = []
  for try await number in pool.map(0..<60, ordered: true, { try await $0.echo($1) }) { ordered.append(number) }
  try check(ordered == Array(0..<60), "in the order of inputs")
  try check(try await pool.with { try await $0.echo(8) } == 8, "one of a pool")

  // What was on its way when its worker died.
  let dying = (0..<5).map { _ in Task { try await other.sleep(60) } }
  let lost = try await other.submit { try await $0.sleep(60) }
  try await Task.sleep(for: .milliseconds(100))
  _ = try? await other.die()
  for call in dying {
    let error = try await failure { try await call.value }
    try check(error.code == .actorDied && error.mayHaveRun && error.message.contains("signal 9"), "\(error)")
  }
  try check(try await failure { _ = try await lost.value }.mayHaveRun, "a lost reference")
}

// MARK: - Output

struct Print: RemoteAction {
  var number: Int
  func perform(in context: TaskContext) async throws {
    print("print \(number)")
    if number == 3 { print("colour \u{1B}[31m") }
  }
}

/// Writes something without an end of its line, and is killed.
struct Mumble: RemoteAction {
  func perform(in context: TaskContext) async throws {
    _ = write(1, "not a whole line", 16)
    kill(getpid(), SIGKILL)
    try await Task.sleep(for: .seconds(60))
  }
}

func prints(_ cluster: Cluster) async throws {
  var once = TaskOptions()
  once.retries = .never
  try check(try await failure { try await cluster.run(Mumble(), once) }.code == .workerLost, "it was killed")
  for number in 0..<5 { try await cluster.run(Print(number: number)) }
}

// MARK: - Many

private func say(_ text: String) {
  let line = text + "\n"
  _ = write(2, line, line.utf8.count)
}

/// Resident memory of this process, in bytes.
private func resident() -> Int {
  let text = (try? String(contentsOf: URL(filePath: "/proc/self/statm"), encoding: .utf8)) ?? ""
  return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
}

/// `COUNT` tasks wait at once, and all end; says what each takes meanwhile.
func million(_ cluster: Cluster) async throws {
  let count = currentEnvironment()["COUNT"].flatMap { Int($0) } ?? 1_000_000
  // Somebody has what they need, until all wait.
  let gate = (currentEnvironment()["MARKER"] ?? "") + "-million"
  let options = TaskOptions.resources(["special": 1], cpu: 0)
  let holder = try cluster.submit(Sleep(seconds: 600, begun: gate), options)
  try await eventually("it is taken") { size(of: gate) == 1 }
  let before = resident()
  let begin = ContinuousClock.now
  var results: [ObjectRef<Int>] = []
  results.reserveCapacity(count)
  for number in 0..<count { results.append(try cluster.submit(Square(number: number * 7 + 1), options)) }
  let submitted = ContinuousClock.now
  let each = (resident() - before) / count
  holder.cancel()
  for (number, result) in results.enumerated() {
    let value = try await result.value
    try check(value == (number * 7 + 1) * (number * 7 + 1), "result \(number)")
  }
  let seconds = (ContinuousClock.now - begin) / .seconds(1)
  say(
    "\(count) tasks: \(each) bytes each, submitted in \((submitted - begin) / .seconds(1)) s, all ended after \(seconds) s"
  )
  try check(each < 1_000, "\(each) bytes for each task that waits")
}

/// `COUNT` actors at the same time, all of which answer.
func thousand(_ cluster: Cluster) async throws {
  let count = currentEnvironment()["COUNT"].flatMap { Int($0) } ?? 1_000
  let begin = ContinuousClock.now
  let ears = try await cluster.spawn(Ear.self, count: count, with: 0)
  let up = (ContinuousClock.now - begin) / .seconds(1)
  let answers = try await withThrowingTaskGroup(of: Int.self) { group in
    for (number, ear) in ears.enumerated() { group.addTask { try await ear.echo(number) } }
    return try await group.reduce(0, +)
  }
  try check(answers == count * (count - 1) / 2, "all answer")
  say("\(count) actors up in \(up) s")
}

/// One task and then another, for who looks at what is said meanwhile.
func trace(_ cluster: Cluster) async throws {
  try check(try await cluster.submit(Square(number: 3)).value == 9, "the first")
  try check(try await cluster.submit(Square(number: 4)).value == 16, "the second")
  try await Task.sleep(for: .milliseconds(300))
  try check(try await cluster.run(Large(size: 1_000_000)).count == 1_000_000, "a large one")
  let ear = try await cluster.spawn(Ear.self, with: 0)
  try check(try await ear.echo(1) == 1, "a call")
  try await cluster.stop(ear)
}
