import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import Testing

/// Whether a bench can run in namespaces here; says why not.
@Sendable func benchesRunInNamespaces() async -> Bool {
  if case .unavailable(let reason) = await Emulation.availability() {
    print("skipped: \(reason)")
    return false
  }
  return benchesRun()
}

/// Whether a bench can run at all; says why not.
@Sendable func benchesRun() -> Bool {
  if SeaweedServer.isInstalled() { return true }
  print("skipped: SeaweedFS is not installed (make environment)")
  return false
}

/// `mobula bench` as it is, small: what it measures, and what becomes of it when any part of it dies.
///
/// The benches of all tests run beside each other, a few at a time, since they mostly wait.
@Suite struct BenchTests {
  private static let size = 8_000_000
  private static let slots = Slots(4)

  // MARK: - Figures

  private struct Measured: Sendable {
    var report: BenchReport
    var json: JSONValue
  }

  /// Everything that is run in one emulation, started together when a first test asks.
  private struct Benches: Sendable {
    var figures: Task<Measured, any Error>
    var faults: [BenchFault: Task<DisturbedBench, any Error>]

    init(_ arguments: [String], faults: [BenchFault]) {
      figures = Task { try await slots.use { try await measure(arguments) } }
      self.faults = Dictionary(
        uniqueKeysWithValues: faults.map { fault in
          (fault, Task { try await slots.use { try await fault.strike() } })
        })
    }
  }

  private static let inNamespaces = {
    let benches = Benches(
      ["--nic", "200mbit", "--cases", "replication-1", "replication-2", "replication-3", "s3-2"], faults: faults)
    _ = onLoopback
    return benches
  }()
  private static let onLoopback = Benches(
    ["--emulation", "loopback", "--cases", "replication-1", "replication-3", "s3-1"], faults: loopbackFaults)

  private static func measure(_ arguments: [String]) async throws -> Measured {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let file = folder.path + "/report.json"
    let finished = try await run(
      Products.mobula, ["bench", "--size", "\(size / 1_000_000)MB", "--json", file] + arguments,
      within: .seconds(120))
    try #require(finished.status.isSuccess, "\(finished)")
    let data = try Data(contentsOf: URL(filePath: file))
    return Measured(
      report: try JSONDecoder().decode(BenchReport.self, from: data),
      json: try JSONDecoder().decode(JSONValue.self, from: data))
  }

  @Test(.enabled("needs root or user namespaces, and SeaweedFS", benchesRunInNamespaces))
  func figuresInNamespaces() async throws {
    let report = try await Self.inNamespaces.figures.value.report
    #expect(report.emulation == .netns && report.size == Self.size)
    let lineRate = try #require(report.lineRate)
    #expect(abs(Double(lineRate) - 25e6 * 0.956) <= 25e6 * 0.956 * 0.02, "\(lineRate)")
    #expect(
      report.cases.map(\.title) == [
        "replication-1, 1 loader", "replication-2, 1 loader", "replication-2, 2 loaders", "replication-3, 1 loader",
        "replication-3, 2 loaders", "s3-2 direct, 1 loader", "s3-2 direct, 2 loaders", "s3-2 direct, 3 loaders",
        "s3-2 direct, 4 loaders", "s3-2 planned, 1 loader", "s3-2 planned, 2 loaders", "s3-2 planned, 3 loaders",
        "s3-2 planned, 4 loaders",
      ])
    for item in report.cases {
      let isOnSameHost = ["replication-2", "replication-3"].contains(item.id)
      let payload = isOnSameHost ? 0 : item.loaders.count * Self.size
      // Besides the headers there is what the cluster says to itself meanwhile.
      let wireBytes = try #require(item.wireBytes)
      #expect(payload...(payload * 106 / 100 + 100_000) ~= wireBytes, "\(item.title)")
      let fromS3 = item.sources == .planned ? Self.size : item.sources == .direct ? payload : 0
      #expect(item.s3Bytes == fromS3, "\(item.title)")
      #expect((item.limit == nil) == isOnSameHost && (item.ratio == nil) == isOnSameHost, "\(item.title)")
      if isOnSameHost { #expect(item.loaders.allSatisfy { $0.bytesCopied == 0 && $0.host == "h0" }, "\(item.title)") }
      #expect(item.loaders.allSatisfy { $0.seconds > 0 && $0.touched > 0 && $0.seconds <= item.slowest })
    }
  }

  @Test(.enabled("needs SeaweedFS", benchesRun))
  func figuresOnLoopback() async throws {
    let report = try await Self.onLoopback.figures.value.report
    #expect(report.emulation == .loopback && report.size == Self.size && report.lineRate == nil)
    #expect(report.cases.map(\.id) == ["replication-1", "replication-3", "replication-3", "s3-1"])
    for item in report.cases {
      #expect(item.limit == nil && item.ratio == nil && item.wireBytes == nil)
      #expect(item.s3Bytes == (item.id == "s3-1" ? Self.size : 0))
    }
    #expect(report.cases[1].loaders[0].bytesCopied == 0)
  }

  @Test(.enabled("needs SeaweedFS", benchesRun))
  func everyKeyOfTheSchemaIsThere() async throws {
    let json = try await Self.onLoopback.figures.value.json
    #expect(json.keys == ["version", "emulation", "size", "nic", "tls", "lineRate", "cases"])
    #expect(json["version"] == .number(1) && json["lineRate"] == .null)
    for item in try #require(json["cases"]).elements {
      #expect(
        item.keys == ["id", "sources", "loaders", "slowest", "limit", "ratio", "predicted", "s3Bytes", "wireBytes"])
      for loader in try #require(item["loaders"]).elements {
        #expect(loader.keys == ["host", "pod", "seconds", "touched", "bytesCopied", "error"])
      }
    }
  }

  // MARK: - Faults

  private static let faults: [BenchFault] =
    BenchFault.Victim.allCases.map { BenchFault(victim: $0, moment: $0 == .weed ? "s3-2" : "replication-4, ") }
    + [SIGINT, SIGTERM].map { BenchFault(victim: .outer, signal: $0) }
    + [BenchFault(victim: .outer, signal: SIGINT, moment: "starting SeaweedFS")]
  private static let loopbackFaults = [
    BenchFault(victim: .inside, emulation: .loopback), BenchFault(victim: .outer, signal: SIGINT, emulation: .loopback),
  ]

  @Test(.enabled("needs root or user namespaces, and SeaweedFS", benchesRunInNamespaces), arguments: faults)
  func faultInNamespaces(_ fault: BenchFault) async throws {
    expectCleanEnd(of: fault, try await Self.inNamespaces.faults[fault]!.value)
  }

  @Test(.enabled("needs SeaweedFS", benchesRun), arguments: loopbackFaults)
  func faultOnLoopback(_ fault: BenchFault) async throws {
    expectCleanEnd(of: fault, try await Self.onLoopback.faults[fault]!.value)
  }

  /// An error of one sentence or success in spite of it, soon, and nothing is left.
  private func expectCleanEnd(of fault: BenchFault, _ bench: DisturbedBench) {
    #expect(bench.left.isEmpty)
    switch (fault.victim, fault.signal) {
    case (.outer, SIGKILL): #expect(bench.exit == .signal(SIGKILL))
    case (.outer, _):
      #expect(bench.exit == .status(128 + fault.signal))
      #expect(bench.errors.isEmpty, "\(bench.output)")
    default:
      if bench.exit.isSuccess { break }
      #expect(bench.exit == .status(1), "\(bench.output)")
      #expect(bench.errors.count == 1 && bench.errors[0].hasSuffix("."), "one sentence: \(bench.output)")
    }
  }
}

/// Lets a few go on at a time.
private actor Slots {
  private var free: Int
  private var waiting: [CheckedContinuation<Void, Never>] = []

  init(_ count: Int) { free = count }

  nonisolated func use<Value: Sendable>(_ body: @Sendable () async throws -> Value) async rethrows -> Value {
    await take()
    do {
      let value = try await body()
      await give()
      return value
    } catch {
      await give()
      throw error
    }
  }

  private func take() async {
    if free > 0 { return free -= 1 }
    await withCheckedContinuation { waiting.append($0) }
  }

  private func give() {
    if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
  }
}
