import Distributed
import FoundationEssentials
import Glibc
public import Mobula
import MobulaCore

/// One row: how often a second, and the standard deviation over the rounds.
public struct MicrobenchmarkRow: Codable, Sendable, Hashable {
  public var name: String
  public var perSecond: Double
  public var deviation: Double

  public init(name: String, perSecond: Double, deviation: Double) {
    self.name = name
    self.perSecond = perSecond
    self.deviation = deviation
  }

  /// Reads a line as `ray microbenchmark` prints it; `nil` for any other.
  public init?(line: some StringProtocol) {
    let parts = line.split(separator: " per second ", maxSplits: 1)
    guard parts.count == 2 else { return nil }
    let numbers = parts[1].split(separator: " +- ")
    guard let first = numbers.first, let perSecond = Double(first) else { return nil }
    self.init(
      name: String(parts[0]), perSecond: perSecond, deviation: numbers.dropFirst().first.flatMap { Double($0) } ?? 0)
  }

  /// As `ray microbenchmark` prints it.
  public var text: String { "\(name) per second \(Self.rounded(perSecond)) +- \(Self.rounded(deviation))" }

  private static func rounded(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }
}

/// Small operations on the store, with the rows and definitions of `ray microbenchmark` where they apply:
/// a second to warm up, then four rounds of two seconds each; their mean and standard deviation.
public struct Microbenchmark: Sendable {
  /// The rows, in their order.
  public static let names = [
    "memcpy gigabytes", "single client get calls", "single client put calls", "multi client put calls",
    "single client put gigabytes", "multi client put gigabytes", "single client get object containing 10k refs",
    "single client wait 1k refs", "single client tasks and get batch", "single client tasks sync",
    "single client tasks async", "multi client tasks async", "1:1 actor calls sync", "1:1 actor calls async",
    "1:1 actor calls concurrent", "1:n actor calls async", "n:n actor calls async", "n:n actor calls with arg async",
    "1:1 async-actor calls sync", "1:1 async-actor calls async", "1:1 async-actor calls with args async",
  ]

  private let cluster: Cluster
  private let filter: String
  /// Of a round.
  private let duration: Duration
  private let report: @Sendable (MicrobenchmarkRow) -> Void
  private let begins: @Sendable (String) -> Void

  /// - Parameters:
  ///   - filter: what a row's name has to contain.
  ///   - seconds: of each of the four rounds; the warm-up takes half of it.
  ///   - begins: told each row before it is measured.
  ///   - report: told each row when it is there.
  public init(
    on cluster: Cluster, filter: String = "", seconds: Double = 2,
    begins: @escaping @Sendable (String) -> Void = { _ in },
    report: @escaping @Sendable (MicrobenchmarkRow) -> Void
  ) {
    self.cluster = cluster
    self.filter = filter
    duration = .seconds(seconds)
    self.begins = begins
    self.report = report
  }

  /// Runs the rows.
  public func run() async throws -> [MicrobenchmarkRow] {
    var rows: [MicrobenchmarkRow] = []
    /// - Parameter multiplier: what one call counts for.
    func time(_ name: String, multiplier: Double = 1, _ body: () async throws -> Void) async throws {
      let row = try await measure(name, multiplier: multiplier, body)
      rows.append(row)
      report(row)
    }
    func wants(_ name: String) -> Bool {
      let isWanted = filter.isEmpty || name.contains(filter)
      if isWanted { begins(name) }
      return isWanted
    }

    // As many zeros as there; in memory that has been touched, where the copies cost most.
    let big = Blob(
      [UInt8](
        repeating: 0,
        count: Self.names.contains { $0.contains("gigabytes") && (filter.isEmpty || $0.contains(filter)) }
          ? 800 << 20 : 0))
    let gigabytes = Double(big.count) / 1e9
    if wants("memcpy gigabytes") {
      let target = UnsafeMutableRawBufferPointer.allocate(byteCount: big.count, alignment: 4096)
      defer { target.deallocate() }
      memset(target.baseAddress!, 1, target.count)
      try await time("memcpy gigabytes", multiplier: gigabytes) {
        big.withUnsafeBytes { _ = memcpy(target.baseAddress!, $0.baseAddress!, $0.count) }
      }
    }
    if wants("single client get calls") {
      let reference = try await cluster.put(0)
      try await time("single client get calls") { _ = try await reference.value }
    }
    if wants("single client put calls") {
      try await time("single client put calls") { _ = try await cluster.put(0) }
    }
    if wants("multi client put calls") {
      try await time("multi client put calls", multiplier: 1000) {
        try await together(10) { PutSmall(count: 100) }
      }
    }
    if wants("single client put gigabytes") {
      try await time("single client put gigabytes", multiplier: gigabytes) { _ = try await cluster.put(big) }
    }
    if wants("multi client put gigabytes") {
      try await time("multi client put gigabytes", multiplier: 10 * 10 * Double(80 << 20) / 1e9) {
        try await together(10) { PutLarge(count: 10) }
      }
    }
    if wants("single client get object containing 10k refs") {
      let container = try cluster.submit(MakeReferences(count: 10_000))
      _ = try await container.value
      try await time("single client get object containing 10k refs") { _ = try await container.value }
    }
    if wants("single client wait 1k refs") {
      try await time("single client wait 1k refs") {
        var pending = try (0..<1000).map { _ in try cluster.submit(SmallValue()) }
        for _ in 0..<1000 { pending = try await cluster.wait(for: pending).pending }
      }
    }
    if wants("single client tasks and get batch") {
      try await time("single client tasks and get batch") { try await batch(1000, on: cluster) }
    }
    if wants("single client tasks sync") {
      try await time("single client tasks sync") { try await batch(1, on: cluster) }
    }
    if wants("single client tasks async") {
      try await time("single client tasks async", multiplier: 1000) { try await batch(1000, on: cluster) }
    }
    if wants("multi client tasks async") {
      try await time("multi client tasks async", multiplier: 4 * 1000) {
        // Clients need no CPU of the pod's, which those tasks have that they submit.
        try await together(4, .resources(cpu: 0)) { SubmitSmall(count: 1000) }
      }
    }
    func timeActor(
      _ name: String, multiplier: Double = 1, _ options: ActorOptions = ActorOptions(),
      _ body: (SmallActor) async throws -> Void
    ) async throws {
      guard wants(name) else { return }
      try await cluster.withActor(SmallActor.self, with: 0, options) { actor in
        try await time(name, multiplier: multiplier) { try await body(actor) }
      }
    }
    try await timeActor("1:1 actor calls sync") { _ = try await $0.smallValue() }
    try await timeActor("1:1 actor calls async", multiplier: 1000) { try await callBatch(1000, [$0], on: cluster) }
    var sixteen = ActorOptions()
    sixteen.concurrency = .reentrant(limit: 16)
    try await timeActor("1:1 actor calls concurrent", multiplier: 1000, sixteen) {
      try await callBatch(1000, [$0], on: cluster)
    }
    // As many servers as there are pairs of CPUs, and at least one.
    let servers = max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN)) / 2)
    if wants("1:n actor calls async") {
      let actors = try await cluster.spawn(SmallActor.self, count: servers, with: 0)
      let client = try await cluster.spawn(SmallClient.self, with: actors)
      try await time("1:n actor calls async", multiplier: Double(5000 * servers)) { try await client.call(5000) }
      for actor in actors { try await cluster.stop(actor) }
      try await cluster.stop(client)
    }
    if wants("n:n actor calls async") {
      let actors = try await cluster.spawn(SmallActor.self, count: servers, with: 0)
      try await time("n:n actor calls async", multiplier: 4 * 5000) {
        try await together(4) { CallSmall(actors: actors, count: 5000) }
      }
      for actor in actors { try await cluster.stop(actor) }
    }
    if wants("n:n actor calls with arg async") {
      let actors = try await cluster.spawn(SmallActor.self, count: servers, with: 0)
      var clients: [SmallClient] = []
      for actor in actors { clients.append(try await cluster.spawn(SmallClient.self, with: [actor])) }
      let all = clients
      try await time("n:n actor calls with arg async", multiplier: Double(1000 * servers)) {
        try await withThrowingTaskGroup(of: Void.self) { group in
          for client in all { group.addTask { try await client.callWithArgument(1000) } }
          try await group.waitForAll()
        }
      }
      for actor in actors { try await cluster.stop(actor) }
      for client in clients { try await cluster.stop(client) }
    }
    try await timeActor("1:1 async-actor calls sync") { _ = try await $0.smallValueLater() }
    try await timeActor("1:1 async-actor calls async", multiplier: 1000) { actor in
      var results: [ObjectRef<String>] = []
      for _ in 0..<1000 { results.append(try await actor.submit { try await $0.smallValueLater() }) }
      _ = try await cluster.values(results)
    }
    try await timeActor("1:1 async-actor calls with args async", multiplier: 1000) { actor in
      var results: [ObjectRef<String>] = []
      for number in 0..<1000 { results.append(try await actor.submit { try await $0.smallValueLater(number) }) }
      _ = try await cluster.values(results)
    }
    return rows
  }

  private func together<Work: RemoteTask>(
    _ count: Int, _ options: TaskOptions = .resources(), _ make: () -> Work
  ) async throws where Work.Output == Int {
    let results = try (0..<count).map { _ in try cluster.submit(make(), options) }
    for result in results { _ = try await result.value }
  }

  private func measure(
    _ name: String, multiplier: Double, _ body: () async throws -> Void
  ) async throws -> MicrobenchmarkRow {
    var start = ContinuousClock.now
    var count = 0
    while start.duration(to: .now) < duration / 2 {
      try await body()
      count += 1
    }
    let step = count / 10 + 1
    var rates: [Double] = []
    for _ in 0..<4 {
      start = .now
      count = 0
      while start.duration(to: .now) < duration {
        for _ in 0..<step { try await body() }
        count += step
      }
      rates.append(multiplier * Double(count) / (start.duration(to: .now) / .seconds(1)))
    }
    let mean = rates.reduce(0, +) / Double(rates.count)
    let variance = rates.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(rates.count)
    return MicrobenchmarkRow(name: name, perSecond: mean, deviation: variance.squareRoot())
  }
}

/// Puts small values from a worker.
struct PutSmall: RemoteTask {
  var count: Int

  func run(in context: TaskContext) async throws -> Int {
    for _ in 0..<count { _ = try await context.cluster.put(0) }
    return count
  }
}

/// Submits small tasks and waits for all.
private func batch(_ count: Int, on cluster: Cluster) async throws {
  let results = try (0..<count).map { _ in try cluster.submit(SmallValue()) }
  for result in results { _ = try await result.value }
}

/// What does next to nothing.
struct SmallValue: RemoteTask {
  func run(in context: TaskContext) async throws -> String { "ok" }
}

/// Answers with next to nothing.
distributed actor SmallActor: RemoteActor {
  typealias ActorSystem = Cluster

  init(configuration: Int, actorSystem: Cluster) async throws { self.actorSystem = actorSystem }

  distributed func smallValue() -> String { "ok" }
  distributed func smallValue(_ argument: ObjectRef<Int>) -> String { "ok" }
  distributed func smallValueLater() async -> String { "ok" }
  distributed func smallValueLater(_ argument: Int) async -> String { "ok" }
}

/// Calls each of some actors so often, and waits for all.
private func callBatch(_ count: Int, _ actors: [SmallActor], on cluster: Cluster) async throws {
  var results: [ObjectRef<String>] = []
  for actor in actors {
    for _ in 0..<count { results.append(try await actor.submit { try await $0.smallValue() }) }
  }
  _ = try await cluster.values(results)
}

/// Calls actors from a worker.
distributed actor SmallClient: RemoteActor {
  typealias ActorSystem = Cluster
  private let servers: [SmallActor]

  init(configuration: [SmallActor], actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    servers = configuration
  }

  distributed func call(_ count: Int) async throws { try await callBatch(count, servers, on: actorSystem) }

  distributed func callWithArgument(_ count: Int) async throws {
    let argument = try await actorSystem.put(0)
    var results: [ObjectRef<String>] = []
    for server in servers {
      for _ in 0..<count { results.append(try await server.submit { try await $0.smallValue(argument) }) }
    }
    _ = try await actorSystem.values(results)
  }
}

/// Calls actors in turn from a task.
struct CallSmall: RemoteTask {
  var actors: [SmallActor]
  var count: Int

  func run(in context: TaskContext) async throws -> Int {
    var results: [ObjectRef<String>] = []
    for number in 0..<count {
      results.append(try await actors[number % actors.count].submit { try await $0.smallValue() })
    }
    _ = try await context.cluster.values(results)
    return count
  }
}

/// Submits small tasks from a worker.
struct SubmitSmall: RemoteTask {
  var count: Int

  func run(in context: TaskContext) async throws -> Int {
    try await batch(count, on: context.cluster)
    return count
  }
}

/// Zeros as `numpy.zeros` makes them: memory that the system has not had to touch yet.
private final class Zeros: Sendable {
  // Only ever read, once it is made.
  nonisolated(unsafe) private let base: UnsafeMutableRawPointer

  private init(_ count: Int) { base = calloc(max(count, 1), 1) }

  deinit { free(base) }

  static func blob(_ count: Int) -> Blob {
    let zeros = Zeros(count)
    return Blob(bytes: UnsafeRawBufferPointer(start: zeros.base, count: count), owner: zeros)
  }
}

/// Puts arrays of 80 MB from a worker.
struct PutLarge: RemoteTask {
  var count: Int

  func run(in context: TaskContext) async throws -> Int {
    for _ in 0..<count { _ = try await context.cluster.put(Zeros.blob(80 << 20)) }
    return count
  }
}

/// Makes a value that contains references to values of its own.
struct MakeReferences: RemoteTask {
  var count: Int

  func run(in context: TaskContext) async throws -> [ObjectRef<Int>] {
    var references: [ObjectRef<Int>] = []
    for _ in 0..<count { references.append(try await context.cluster.put(1)) }
    return references
  }
}

/// A cluster of one host on this machine for as long as something is measured, in a folder of its own.
public final class PrivateCluster: Sendable {
  public let directory: String
  private let process: ChildProcess
  private let lifeline: Lifeline

  /// Starts it, with a store of `capacity`.
  ///
  /// - Throws: `MobulaError` when it does not come up within 20 seconds.
  public init(capacity: ByteCount) async throws {
    directory = try makeTemporaryDirectory("bench")
    lifeline = try Lifeline()
    var environment = currentEnvironment()
    environment["MOBULA_LOG"] = environment["MOBULA_LOG"] ?? "error"
    process = try ChildProcess.spawn(
      try Executable.path(),
      [
        "start", "--head", "--foreground", "--lifeline", "--listen", "127.0.0.1", "--port",
        "\(try FreePorts.draw(1)[0])", "--directory", directory, "--capacity", "\(capacity.bytes)", "--spill", "none",
      ], environment: environment, input: .descriptor(lifeline.childsEnd), newSession: true)
    do {
      try await waitUntilReady()
    } catch {
      await stop()
      throw error
    }
  }

  private func waitUntilReady() async throws {
    let deadline = ContinuousClock.now + .seconds(20)
    while ContinuousClock.now < deadline {
      if let exit = process.exit {
        throw MobulaError(
          .unavailable, "The cluster to measure ended with \(exit) instead of starting: its reason is above.")
      }
      if access(HostPaths.host(in: directory), F_OK) == 0,
        let cluster = try? await Cluster.connectTool(ClusterOptions(directory: directory))
      {
        let status = try? await cluster.status()
        await cluster.close()
        if status?.pods.count == 1 { return }
      }
      try await Task.sleep(for: .milliseconds(20))
    }
    throw MobulaError(.deadlineExceeded, "The cluster to measure was not ready within 20 seconds.")
  }

  /// Ends it without waiting for what it does, and removes its folder.
  public func end() {
    // Its processes end with it: they read from its pipe.
    process.signal(SIGKILL)
    removeTree(directory)
  }

  /// Stops it and removes its folder.
  public func stop() async {
    process.signal(SIGTERM)
    _ = await process.waitForExit()
    removeTree(directory)
  }
}
