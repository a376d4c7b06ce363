import Distributed
import Glibc
import Mobula
import MobulaCore

// Actors that the head owns: names, restarts, ends, and those that outlive their driver.

distributed actor Register: RemoteActor {
  typealias ActorSystem = Cluster
  struct Start: Codable, Sendable {
    var value = 0
    /// Where it says that it was stopped, and how often it was made.
    var marker = ""
    var failsOn: Int?
    var reference: ObjectRef<[Int]>?
  }

  private var value: Int
  private let start: Start

  init(configuration: Start, actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    value = configuration.value
    start = configuration
    let times = note("made", in: configuration.marker)
    if configuration.failsOn == times { throw Failure("its init fails at time \(times)") }
    if let reference = configuration.reference { value += try await reference.value.reduce(0, +) }
  }

  distributed func add(_ n: Int) -> Int {
    value += n
    return value
  }
  distributed func process() -> Int32 { getpid() }
  distributed func start(_ n: Int) -> UInt64 { id.incarnation }
  distributed func die() { kill(getpid(), SIGKILL) }
  distributed func slowly(_ milliseconds: Int) async throws -> Int {
    try await Task.sleep(for: .milliseconds(milliseconds))
    value += 1
    return value
  }
  distributed func large(_ size: Int) -> [Int] { Array(repeating: 7, count: size) }
  func willStop() async { note("stopped \(value)", in: start.marker) }
}

/// Adds a line, and says how many there are of it.
@discardableResult
private func note(_ line: String, in path: String) -> Int {
  guard !path.isEmpty, let file = fopen(path, "a+e") else { return 0 }
  defer { fclose(file) }
  fputs(line + "\n", file)
  fflush(file)
  rewind(file)
  var bytes = [UInt8](repeating: 0, count: 1 << 16)
  let count = fread(&bytes, 1, bytes.count, file)
  return String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n").count { $0 == line }
}

private func text(_ path: String) -> String {
  guard let file = fopen(path, "re") else { return "" }
  defer { fclose(file) }
  var bytes = [UInt8](repeating: 0, count: 1 << 16)
  return String(decoding: bytes[..<fread(&bytes, 1, bytes.count, file)], as: UTF8.self)
}

private let marker = currentEnvironment()["MARKER"] ?? ""

func restarts(_ cluster: Cluster) async throws {
  // Never, unless told otherwise: at most once, and it has ended.
  let once = try await cluster.spawn(Register.self, with: .init(value: 1))
  let killed = try await failure { try await once.die() }
  try check(
    killed.code == .actorDied && killed.mayHaveRun && killed.message.contains("signal 9"), "it has ended: \(killed)")
  let after = try await failure { _ = try await once.add(1) }
  try check(after.code == .actorDied && !after.mayHaveRun && after.message.contains("signal 9"), "so: \(after)")

  // Again, from the beginning, with what it was made with.
  let kept = try await cluster.put([1, 2, 3])
  let again = try await cluster.spawn(
    Register.self, with: .init(value: 10, reference: kept), ActorOptions().restarting(.upTo(2)))
  try check(try await again.add(1) == 17, "it counts")
  let (first, process) = (try await again.start(0), try await again.process())
  let lost = try await failure { try await again.die() }
  try check(lost.code == .actorUnavailable && lost.mayHaveRun, "it is started again: \(lost)")
  try check(try await again.add(1) == 17, "from its beginning")
  try check(try await again.process() != process, "in another process")
  try check(try await again.start(0) > first, "as another incarnation")
  try check(await cluster.calls(of: again) == 1, "so it was started again once")
  // Calls that are made while it is away wait, in their order.
  _ = try await failure { try await again.die() }
  var results: [ObjectRef<Int>] = []
  for _ in 0..<50 { results.append(try await again.submit { try await $0.add(1) }) }
  try check(try await cluster.values(results) == Array(17..<67), "calls wait for it in their order")
  let last = try await failure { try await again.die() }
  try check(last.code == .actorDied, "twice, and no more: \(last)")

  // Calls are made again where that is said.
  let flaky = try await cluster.spawn(Register.self, with: .init(), ActorOptions().restarting(.unlimited))
  let pid = try await flaky.process()
  async let value = Call.with(.retries(3)) { try await flaky.slowly(600) }
  try await Task.sleep(for: .milliseconds(200))
  kill(pid, SIGKILL)
  try check(try await value == 1, "a call that is made again")

  // An init that fails once it has lived is one of its ends.
  let failing = try await cluster.spawn(
    Register.self, with: .init(marker: marker, failsOn: 2), ActorOptions().restarting(.upTo(2)))
  _ = try await failure { try await failing.die() }
  try check(try await failing.add(5) == 5, "its second start failed, and its third did not")
  let never = try await failure {
    _ = try await cluster.spawn(
      Register.self, with: .init(marker: marker + ".never", failsOn: 1), ActorOptions().restarting(.unlimited))
  }
  try check(never.code == .workFailed && never.message.contains("at time 1"), "the first start says why: \(never)")
}

extension Cluster {
  /// How often an actor was started again.
  fileprivate func calls(of actor: Register) async -> Int? {
    try? await actors().first { $0.actor == actor.id.actor }?.restarts
  }
}

func ends(_ cluster: Cluster) async throws {
  let actor = try await cluster.spawn(Register.self, with: .init(marker: marker))
  var seen: [ActorState] = []
  let watching = Task {
    var seen: [ActorState] = []
    for await status in cluster.states(of: actor) { seen.append(status.state) }
    return seen
  }
  async let slow = actor.slowly(500)
  try await Task.sleep(for: .milliseconds(150))
  let stopping = Task { try await cluster.stop(actor) }
  try await Task.sleep(for: .milliseconds(100))
  let refused = try await failure { _ = try await actor.add(1) }
  try check(
    [.actorUnavailable, .actorDied].contains(refused.code) && !refused.mayHaveRun, "it takes no calls: \(refused)")
  try check(try await slow == 1, "what goes on may end")
  try await stopping.value
  try check(text(marker).contains("stopped 1"), "it was told: \(text(marker))")
  seen = await watching.value
  try check(seen.first == .alive && seen.last == .dead && seen.contains(.stopping), "its states: \(seen)")
  try await cluster.stop(actor)

  let abrupt = try await cluster.spawn(Register.self, with: .init(marker: marker + ".now"))
  async let cut = failure { _ = try await abrupt.slowly(20_000) }
  try await Task.sleep(for: .milliseconds(150))
  try await cluster.stop(abrupt, .now)
  let error = try await cut
  try check(error.code == .actorDied && error.mayHaveRun && error.message.contains("stopped"), "at once: \(error)")
  try check(!text(marker + ".now").contains("stopped"), "and not told")

  let anew = try await cluster.spawn(Register.self, with: .init(value: 3))
  _ = try await anew.add(4)
  try await cluster.stop(anew, restarts: true)
  try check(try await anew.add(1) == 4, "stopped, and started again")

  // Another job, for as long as a closure, or a service, runs.
  let sum = try await withCluster(cluster.options) { other in
    let register = try await other.spawn(Register.self, with: .init(value: 2))
    return try await register.add(2)
  }
  try check(sum == 4, "a job of its own: \(sum)")
  let service = try await Cluster.connect(cluster.options)
  let running = Task { try await service.run() }
  try check(try await service.spawn(Register.self, with: .init(value: 2)).add(1) == 3, "a service's")
  running.cancel()
  try await running.value
  let closed = try await failure { _ = try await service.spawn(Register.self, with: .init()) }
  try check(closed.code == .unavailable, "its job has ended: \(closed)")

  try await cluster.withActor(Register.self, with: .init(marker: marker + ".with")) { _ = try await $0.add(1) }
  try check(text(marker + ".with").contains("stopped 1"), "withActor lets it end")
}

func named(_ cluster: Cluster) async throws {
  let first = try await cluster.spawn(Register.self, with: .init(value: 5), .named("team/one"))
  let found = try await cluster.actor(named: "team/one", as: Register.self)
  try check(found.id == first.id, "it is found")
  try check(try await found.add(1) == 6, "and called")
  let taken = try await failure { _ = try await cluster.spawn(Register.self, with: .init(), .named("team/one")) }
  try check(taken.code == .alreadyExists, "a name is one actor's: \(taken)")
  let same = try await cluster.spawn(
    Register.self, with: .init(value: 50), .named(ActorName("team/one", ifTaken: .use)))
  try check(try await same.add(1) == 7, "use what is there")
  let wrong = try await failure { _ = try await cluster.actor(named: "team/one", as: Counter.self) }
  try check(
    wrong.code == .mismatch && wrong.message.contains("Register") && wrong.message.contains("Counter"),
    "of that type: \(wrong)")
  let wrongUse = try await failure {
    _ = try await cluster.spawn(Counter.self, with: 1, .named(ActorName("team/one", ifTaken: .use)))
  }
  try check(wrongUse.code == .mismatch, "also to use: \(wrongUse)")
  let other = try await cluster.spawn(
    Register.self, with: .init(value: 70), .named(ActorName("team/one", ifTaken: .replace)))
  try check(try await other.add(1) == 71, "replaced")
  let replaced = try await failure { _ = try await first.add(1) }
  try check(replaced.code == .actorDied && replaced.message.contains("name"), "the first has ended: \(replaced)")
  let nobody = try await failure { _ = try await cluster.actor(named: "nobody", as: Register.self) }
  try check(nobody.code == .notFound, "no such name: \(nobody)")
  // Many at once use one.
  let many = try await withThrowingTaskGroup(of: Register.self) { group in
    for _ in 0..<20 {
      group.addTask {
        try await cluster.spawn(Register.self, with: .init(), .named(ActorName("shared", ifTaken: .use)))
      }
    }
    return try await group.reduce(into: []) { $0.append($1) }
  }
  try check(Set(many.map(\.id)).count == 1, "one actor for all")
  for bad in ["", String(repeating: "x", count: 1_001)] {
    let error = try await failure { _ = try await cluster.spawn(Register.self, with: .init(), .named(.init(bad))) }
    try check(error.code == .invalidArgument, "a name that can't be: \(error)")
  }
  let several = try await failure { _ = try await cluster.spawn(Register.self, count: 2, with: .init(), .named("n")) }
  try check(several.code == .invalidArgument, "several with one name: \(several)")
  let reference = try await cluster.put([1])
  let detached = try await failure {
    _ = try await cluster.spawn(
      Register.self, with: .init(reference: reference), ActorOptions.named("d").detached)
  }
  try check(detached.code == .invalidArgument, "references go with their job: \(detached)")
  // In a task, by its name, and of its arguments.
  try check(
    try await cluster.run(AddByName(name: "shared", reference: nil), .resources(cpu: 0)) == 3, "a task finds it")
  let moved = try await cluster.run(AddByName(name: "", reference: many[0]), .resources(cpu: 0))
  try check(moved == 6, "and has it as an argument: \(moved)")
}

struct AddByName: RemoteTask {
  var name: String
  var reference: Register?
  func run(in context: TaskContext) async throws -> Int {
    if let reference { return try await reference.add(3) }
    return try await context.cluster.actor(named: name, as: Register.self).add(3)
  }
}

/// Leaves an actor behind.
func leaves(_ cluster: Cluster) async throws {
  let detached = try await cluster.spawn(
    Register.self, with: .init(value: 1, marker: marker), ActorOptions.named("left").restarting(.unlimited).detached)
  try check(try await detached.add(1) == 2, "it is there")
  _ = try await cluster.spawn(Register.self, with: .init(value: 1), .named("gone with its job"))
}

/// Finds what another job has left.
func finds(_ cluster: Cluster) async throws {
  let gone = try await failure { _ = try await cluster.actor(named: "gone with its job", as: Register.self) }
  try check(gone.code == .notFound || gone.code == .actorDied, "what is not detached ends: \(gone)")
  let left = try await cluster.actor(named: "left", as: Register.self)
  let value = try await left.add(1)
  try check(value > 2, "it has gone on: \(value)")
  try check(try await left.large(100_000).count == 100_000, "large results of another job's actor")
  let result = try await left.submit { try await $0.large(200_000) }
  try check(try await result.value.count == 200_000, "and submitted")
  try check(
    try await cluster.run(AddByName(name: "left", reference: nil), .resources(cpu: 0)) == value + 3, "from a task")
  _ = try await failure { try await left.die() }
  try check(try await left.add(1) == 2, "it is started again without its driver")
  let status = try await cluster.actors().first { $0.name == "left" }
  try check(status?.isDetached == true && status?.restarts ?? 0 > 0, "\(String(describing: status))")
}

/// GPUs as a pod has them in its books: there need not be any.
func gpus(_ cluster: Cluster) async throws {
  let whole = try await cluster.spawn(Device.self, with: 0, .resources(gpu: 1))
  let half = try await cluster.spawn(Device.self, with: 0, .resources(gpu: 0.5))
  let other = try await cluster.run(Seen(), .resources(gpu: 0.5))
  let all = [try await whole.seen(), try await half.seen(), other, try await cluster.run(Seen())]
  try check(all == [["0", "0"], ["1", "1"], ["1", "1"], ["", ""]], "whose GPUs are whose: \(all)")
  try await cluster.stop(whole)
  let both = try await failure {
    _ = try await cluster.run(
      Seen(),
      {
        var options = TaskOptions.resources(gpu: 1.5); options.schedulingLimit = .seconds(3); return options
      }())
  }
  try check(both.message.contains("whole ones"), "one and a half: \(both)")
  try check(try await cluster.run(Seen(), .resources(gpu: 1)) == ["0", "0"], "one that was given back")
}

private func seen() -> [String] {
  [Worker.gpus.map(String.init).joined(separator: ","), currentEnvironment()["CUDA_VISIBLE_DEVICES"] ?? "none"]
}

struct Seen: RemoteTask {
  func run(in context: TaskContext) async throws -> [String] { MobulaTestApp.seen() }
}

distributed actor Device: RemoteActor {
  typealias ActorSystem = Cluster
  init(configuration: Int, actorSystem: Cluster) async throws { self.actorSystem = actorSystem }
  distributed func seen() -> [String] { MobulaTestApp.seen() }
}
