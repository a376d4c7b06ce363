import FoundationEssentials
import Glibc
public import MobulaCore
import MobulaS3
import MobulaWire
import Synchronization

/// What `mobula bench` was asked for.
public struct BenchOptions: Sendable {
  /// Bytes of the model. Default: 128 MB.
  public var size = ByteCount.megabytes(128)
  /// The rate of every host's interface; `nil` for as fast as it goes. Default: 840 Mbit/s.
  public var nic: LinkRate? = LinkRate(bitsPerSecond: 840_000_000)
  /// Cases to run; empty for all.
  public var cases: [String] = []
  /// How often each case runs; medians are reported. Default: 1.
  public var runs = 1
  /// An S3 server that runs already; `nil` for a SeaweedFS of the bench's own.
  public var s3Endpoint: String?
  /// Whether the hosts talk to each other through TLS. Default: no.
  public var tls = false

  public init() {}
}

/// The measured comparison: brings up hosts and an S3 server, starts a cluster on
/// them, lets the driver run the cases, and gathers what they show.
///
/// Runs inside `BenchIsolation`, whose end takes every process with it.
public final class Bench: Sendable {
  private let options: BenchOptions
  private let cases: [PlannedCase]
  private let runs: Mutex<[Int: [BenchRun]]> = Mutex([:])
  /// What the simulation says of the cases that were asked for.
  private let predictions: Mutex<[Prediction: Double?]> = Mutex([:])
  /// What the driver says it failed of.
  private let failure = Mutex<MobulaError?>(nil)
  /// What runs showed that can't be.
  private let problems: Mutex<[String]> = Mutex([])
  private let say: @Sendable (String) -> Void

  static let bucket = "mobula-bench"
  static let key = "model.bin"

  /// - Parameter say: given a line for everything that takes long.
  /// - Throws: `MobulaError` (`invalidArgument`) for cases that there are not.
  public init(_ options: BenchOptions, say: @escaping @Sendable (String) -> Void) throws(MobulaError) {
    let all = try BenchPlan.cases(options.cases)
    if options.cases.isEmpty, options.s3Endpoint == nil, SeaweedBinary.find("weed") == nil {
      say("no S3 server is installed (SeaweedFS), and none is given with --s3-endpoint: the cases with S3 are left out")
      self.cases = all.filter { !$0.usesS3 }
    } else {
      self.cases = all
    }
    var options = options
    if options.cases.isEmpty, cases.count < all.count { options.cases = cases.map(\.id) }
    self.options = options
    self.say = say
  }

  /// Runs the cases.
  ///
  /// - Throws: `MobulaError` of the first thing that goes wrong, among them a line rate that is not the NIC's.
  public func run() async throws -> BenchReport {
    var rates: [Int: LineRate] = [:]
    for stage in BenchPlan.stages(cases) {
      // What a fault befell is not used again.
      let isFaulty = cases[stage.cases.lowerBound].fault != nil
      for _ in 0..<(isFaulty ? options.runs : 1) {
        let rate = try await run(stage.cases, hosts: stage.hosts, runs: isFaulty ? 1 : options.runs)
        for index in stage.cases { rates[index] = rate }
      }
    }
    var report = BenchReport(
      emulation: rates.isEmpty ? .loopback : .netns, size: options.size.bytes,
      nic: rates.isEmpty ? nil : options.nic?.bitsPerSecond, tls: options.tls,
      lineRate: rates[0].map { Int($0.bytesPerSecond) })
    for (index, item) in cases.enumerated() {
      guard let runs = runs.withLock({ $0[index] }), runs.count == options.runs else {
        throw MobulaError(.workFailed, "The case \(item.id) was not measured \(options.runs) times.")
      }
      report.cases.append(result(item, runs, rates[index]))
    }
    return report
  }

  /// Runs some of the cases on a cluster of so many hosts.
  ///
  /// - Returns: the line rate between two of the hosts; `nil` on loopback.
  private func run(_ cases: Range<Int>, hosts: Int, runs: Int) async throws -> LineRate? {
    let certificates = options.tls ? try Self.makeCertificates() : nil
    defer { if let certificates { removeTree(certificates.path) } }
    let emulation = try await Emulation.start(
      hosts: hosts, nic: options.nic, keep: certificates.map { [$0.path] } ?? [])
    do {
      let rate = try await run(cases, runs: runs, on: emulation, certificates: certificates)
      await emulation.stop()
      return rate
    } catch {
      await emulation.stop()
      throw error
    }
  }

  private static func makeCertificates() throws(MobulaError) -> CertificateFolder {
    let folder = CertificateFolder(try makeTemporaryDirectory("bench"))
    let now = Int(time(nil))
    let authority = try folder.createAuthority(cluster: "bench", validity: now - 3600..<now + 86_400)
    try folder.createCertificate(of: authority, name: "bench", hosts: [], validity: now - 3600..<now + 86_400)
    return folder
  }

  private func run(
    _ cases: Range<Int>, runs: Int, on emulation: any HostEmulation, certificates: CertificateFolder?
  ) async throws -> LineRate? {
    let lineRate = try await lineRate(on: emulation)
    if certificates != nil { say("hosts talk to each other through TLS") }
    let seaweed: SeaweedServer?
    let s3: S3Place?
    if !self.cases[cases].contains(where: \.usesS3) {
      (seaweed, s3) = (nil, nil)
    } else if let endpoint = options.s3Endpoint {
      seaweed = nil
      s3 = S3Place(endpoint: endpoint, credentials: try await S3CredentialsChain().credentials())
    } else {
      say("starting SeaweedFS")
      let server = try await SeaweedServer.start(address: emulation.serverAddress)
      seaweed = server
      s3 = S3Place(endpoint: server.endpoint.description, credentials: server.credentials)
    }
    do {
      try await run(
        cases, runs: runs, on: emulation, s3: s3, seaweed: seaweed, lineRate: lineRate, certificates: certificates)
      await seaweed?.stop()
      return lineRate
    } catch {
      await seaweed?.stop()
      throw error
    }
  }

  /// What the network between two of the hosts carries; `nil` on loopback, where the hosts have none.
  ///
  /// - Throws: `MobulaError` (`mismatch`) when it is not what was asked for.
  private func lineRate(on emulation: any HostEmulation) async throws -> LineRate? {
    let (hosts, first, second) = (emulation.hosts.count, emulation.hosts[0], emulation.hosts[1])
    guard emulation.kind == .netns else {
      say(
        "\(hosts) hosts as processes on loopback addresses: no NIC shapes them, so times have no limit to be compared with"
      )
      say("\(try await LineRateProbe.measure(from: first, to: second, nic: nil))")
      return nil
    }
    guard let nic = options.nic else {
      say("\(hosts) hosts in namespaces on one bridge, NICs unshaped")
      return try await unshapedRate(from: first, to: second)
    }
    say("\(hosts) hosts in namespaces on one bridge, NICs of \(nic)")
    var lineRate = try await LineRateProbe.measure(from: first, to: second, nic: nic)
    // A machine that was busy for a moment may be idle by now.
    for _ in 0..<2 where !lineRate.isValid {
      lineRate = try await LineRateProbe.measure(from: first, to: second, nic: nic)
    }
    say("\(lineRate)")
    guard lineRate.isValid else { throw MobulaError(.mismatch, "\(lineRate)") }
    return lineRate
  }

  /// The best that a plain loop reaches, over one, two or four connections.
  private func unshapedRate(from sender: EmulatedHost, to receiver: EmulatedHost) async throws -> LineRate {
    var best = LineRate(bytesPerSecond: 0, nic: nil)
    for connections in [1, 2, 4] {
      let rate = try await LineRateProbe.measurePlainLoop(
        from: sender, to: receiver, bytes: options.size.bytes, connections: connections)
      say(
        "a plain loop of sendfile and recv, \(connections) connections: \(fixed(rate.bytesPerSecond / 1e6, digits: 0)) MB/s"
      )
      if rate.bytesPerSecond > best.bytesPerSecond { best = rate }
    }
    let iperf3 = try await LineRateProbe.measureWithIperf3(from: sender, to: receiver, connections: 4)
    let streams =
      iperf3.map { "\(fixed($0.bytesPerSecond / 1e6, digits: 0)) MB/s" } ?? "nothing (it is not installed, or fails)"
    say("iperf3 with 4 streams: \(streams)")
    return best
  }

  private struct S3Place: Sendable {
    var endpoint: String
    var credentials: S3Credentials

    var environment: [String: String] {
      credentials.environment.merging(["AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"]) { $1 }
    }
  }

  private func run(
    _ cases: Range<Int>, runs: Int, on emulation: any HostEmulation, s3: S3Place?, seaweed: SeaweedServer?,
    lineRate: LineRate?, certificates: CertificateFolder?
  ) async throws {
    let model = SyntheticModel(size: options.size.bytes, seed: 0x6d6f_6275_6c61)
    if let s3 {
      say("uploading a model of \(options.size) to \(s3.endpoint)")
      try await upload(model, to: s3)
    }

    let secret = hexadecimal((0..<32).map { _ in UInt8.random(in: .min ... .max) })
    let token = try ClusterToken(secret)
    let cluster = try BenchCluster(
      emulation: emulation, token: token, secret: secret, environment: s3?.environment ?? [:], size: options.size,
      certificates: certificates)
    try await cluster.start(say: say)

    var router = RPCRouter()
    router.on(BenchControlAPI.counters) { _, _ in
      BenchCounters(
        received: try cluster.hasLost ? nil : emulation.received(),
        fromS3: s3 == nil ? 0 : try await seaweed?.bytesSent(bucket: Self.bucket))
    }
    router.on(BenchControlAPI.finished) { run, _ in
      self.finished(run, lineRate: lineRate)
      return Empty()
    }
    router.on(BenchControlAPI.fault) { fault, _ in
      try await cluster.happen(fault, nic: self.options.nic)
      return Empty()
    }
    router.on(BenchControlAPI.failed) { failure, _ in
      self.failure.withLock { $0 = failure.error }
      return Empty()
    }
    let control = try await RPCServer.bind(
      to: .tcp(host: emulation.serverAddress, port: 0), token: token, hello: Hello(role: .tool, name: "bench"),
      router: router)
    let orders = DriverOrders(
      control: control.endpoint, token: secret, cases: options.cases, first: cases.lowerBound, count: cases.count,
      runs: runs, model: model,
      url: "s3://\(Self.bucket)/\(Self.key)", s3Endpoint: s3?.endpoint ?? "")
    let exit = try await cluster.runDriver(orders, beside: seaweed)
    await control.close()
    if let failure = failure.withLock({ $0 }) { throw failure }
    guard exit.isSuccess else {
      throw MobulaError(.workFailed, "The bench's driver ended with \(exit): its reason is above.")
    }
    if let problem = problems.withLock({ $0.first }) { throw MobulaError(.mismatch, problem) }
  }

  private struct Prediction: Hashable {
    var item: PlannedCase
    var bytesPerSecond: Double
  }

  /// Of shaped interfaces only: the others' limit is the processor.
  private func prediction(of item: PlannedCase, _ lineRate: LineRate) -> Double? {
    guard lineRate.nic != nil else { return nil }
    let key = Prediction(item: item, bytesPerSecond: lineRate.bytesPerSecond)
    return predictions.withLock { known in
      if let seconds = known[key] { return seconds }
      let seconds = item.predictedSeconds(size: options.size.bytes, bytesPerSecond: lineRate.bytesPerSecond)
      known[key] = .some(seconds)
      return seconds
    }
  }

  private func result(_ item: PlannedCase, _ runs: [BenchRun], _ lineRate: LineRate?) -> BenchCase {
    BenchCase(
      id: item.id, sources: item.sources, runs: runs, size: options.size.bytes,
      lineRate: item.crossesNetwork ? lineRate?.bytesPerSecond : nil,
      predicted: lineRate.flatMap { prediction(of: item, $0) })
  }

  private func finished(_ run: FinishedRun, lineRate: LineRate?) {
    guard cases.indices.contains(run.index) else { return }
    let one = BenchRun(
      loaders: run.loaders, s3Bytes: run.fromS3, wireBytes: run.received, faultSeconds: run.faultSeconds)
    if let problem = cases[run.index].problem(with: one, size: options.size.bytes) {
      problems.withLock { $0.append(problem) }
    }
    runs.withLock { $0[run.index, default: []].append(one) }
    say(result(cases[run.index], [one], lineRate).text(size: options.size.bytes))
  }

  private func upload(_ model: SyntheticModel, to s3: S3Place) async throws {
    let client = S3Client(
      configuration: S3Configuration(endpoint: try S3Endpoint(s3.endpoint)), credentials: s3.credentials)
    do {
      try await S3Error.asMobulaError {
        do {
          try await client.createBucket(Self.bucket)
        } catch let error as S3Error where error.mobulaError.code == .alreadyExists {}
        try await client.put(bucket: Self.bucket, key: Self.key, size: model.size) { model.bytes(in: $0) }
      }
      await client.shutdown()
    } catch {
      await client.shutdown()
      throw error
    }
  }
}

extension HostEmulation {
  /// What all hosts together have received; `nil` where nobody counts.
  func received() throws -> Int? {
    var sum = 0
    for host in hosts {
      guard let counters = try host.counters() else { return nil }
      sum += counters.received
    }
    return sum
  }
}
