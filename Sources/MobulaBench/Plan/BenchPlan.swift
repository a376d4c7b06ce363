package import MobulaCore
import MobulaWire

/// Where a loader runs: a host by its index, and one of its two pods.
struct LoaderPlace: Hashable, Sendable, Codable {
  enum PodLetter: String, Sendable, Codable { case a, b }

  var host: Int
  var pod: PodLetter

  var hostName: String { "h\(host)" }
  var podName: String { "h\(host)-\(pod.rawValue)" }
  /// The custom resource that only this pod has.
  var resource: String { Self.resource(host: host, pod: pod) }

  static func resource(host: Int, pod: PodLetter) -> String { "worker_pod_h\(host)\(pod.rawValue)" }
}

/// One measurement: who loads, and how.
struct PlannedCase: Hashable, Sendable {
  enum Kind: Hashable, Sendable {
    /// The model is an object that was made in a pod of the cluster: `maker`.
    case replication(SourcePolicy)
    /// Every loader downloads for itself.
    case s3Direct
    /// The model is fetched from S3 through the stores.
    case s3Planned
  }

  var id: String
  var kind: Kind
  var loaders: [LoaderPlace]
  /// Where the model is made.
  var maker = BenchPlan.maker
  /// Where it is loaded before the clock runs.
  var holders: [LoaderPlace] = []
  /// What befalls a host meanwhile.
  var fault: BenchFault?

  /// How the report names the sources; `nil` where the issue has no choice of them.
  var sources: BenchSources? {
    switch kind {
    case .replication(let policy):
      id.hasPrefix("replication-") && id != "replication-5" ? nil : policy == .origin ? .origin : .relay
    case .s3Direct: id == "s3-1" ? nil : .direct
    case .s3Planned: .planned
    }
  }

  /// Whether it needs an S3 server.
  var usesS3: Bool { if case .replication = kind { false } else { true } }

  /// Whether a byte has to leave the maker's host; a network's limit means nothing otherwise.
  var crossesNetwork: Bool {
    if case .replication = kind { return loaders.contains { $0.host != maker.host } }
    return true
  }
}

/// What befalls a host while an object is on its way.
struct BenchFault: Hashable, Sendable, Codable {
  enum Kind: String, Hashable, Sendable, Codable {
    /// Every process of the host is killed.
    case killed
    /// Its interface carries a tenth, in both directions.
    case slow
  }

  var kind: Kind
  /// By its index.
  var host: Int
  /// How much of the object another receiver has then, from 0 to 1.
  var progress: Double
}

extension BenchOptions {
  /// - Throws: `MobulaError` (`invalidArgument`) for a case that there is not.
  package static func check(cases: [String]) throws(MobulaError) { _ = try BenchPlan.cases(cases) }
}

/// The cases of the comparison, each a pure list of who loads where; and others, which run when asked for.
enum BenchPlan {
  static let maker = LoaderPlace(host: 0, pod: .a)

  /// - Throws: `MobulaError` (`invalidArgument`) for a case that there is not.
  static func cases(_ chosen: [String]) throws(MobulaError) -> [PlannedCase] {
    let all = comparison() + others()
    let known = all.map(\.id)
    for id in chosen where !known.contains(id) {
      var names: [String] = []
      for name in known where !names.contains(name) { names.append(name) }
      throw MobulaError(.invalidArgument, "There is no case \"\(id)\": choose among \(names.joined(separator: ", ")).")
    }
    return chosen.isEmpty ? comparison() : all.filter { chosen.contains($0.id) }
  }

  /// Cases that one cluster measures one after the other, by their positions; and how many hosts it has.
  static func stages(_ cases: [PlannedCase]) -> [(cases: Range<Int>, hosts: Int)] {
    var stages: [(cases: Range<Int>, hosts: Int)] = []
    for (index, item) in cases.enumerated() {
      // The maker's host and five more; and those that more loaders need.
      let hosts = max(6, 1 + ((item.loaders + item.holders + [item.maker]).map(\.host).max() ?? 0))
      // A cluster is of no use any more after a fault.
      if item.fault == nil, let last = stages.last, last.hosts == hosts, cases[last.cases.lowerBound].fault == nil {
        stages[stages.count - 1].cases = last.cases.lowerBound..<index + 1
      } else {
        stages.append((index..<index + 1, hosts))
      }
    }
    return stages
  }

  private static func place(_ host: Int, _ pod: LoaderPlace.PodLetter = .a) -> LoaderPlace {
    LoaderPlace(host: host, pod: pod)
  }

  private static func others() -> [PlannedCase] {
    func relay(
      _ id: String, to count: Int, from maker: LoaderPlace = maker, holders: [LoaderPlace] = [],
      _ fault: BenchFault? = nil
    ) -> PlannedCase {
      PlannedCase(
        id: id, kind: .replication(.relay), loaders: (1...count).map { place($0) }, maker: maker, holders: holders,
        fault: fault)
    }
    // The head's host has to stay.
    let leaving = place(6)
    let leaves = BenchFault(kind: .killed, host: leaving.host, progress: 0.6)
    return [
      relay("fanout-24", to: 24), relay("fault-killed", to: 5, BenchFault(kind: .killed, host: 1, progress: 0.5)),
      relay("fault-slow", to: 5, BenchFault(kind: .slow, host: 1, progress: 0)),
      relay("fault-maker", to: 5, from: leaving, holders: [place(7)], leaves),
      relay("fault-lost", to: 5, from: leaving, leaves),
    ]
  }

  private static func comparison() -> [PlannedCase] {
    var cases: [PlannedCase] = []
    cases.append(PlannedCase(id: "replication-1", kind: .replication(.relay), loaders: [place(1)]))
    for count in 1...2 {
      let loaders = Array(repeating: place(0, .b), count: count)
      cases.append(PlannedCase(id: "replication-2", kind: .replication(.relay), loaders: loaders))
    }
    for count in 1...2 {
      let loaders = Array(repeating: place(0, .a), count: count)
      cases.append(PlannedCase(id: "replication-3", kind: .replication(.relay), loaders: loaders))
    }
    cases.append(
      PlannedCase(
        id: "replication-4", kind: .replication(.relay), loaders: [place(0, .b), place(0, .b), place(1), place(1)]))
    for policy in [SourcePolicy.origin, .relay] {
      for count in 1...5 {
        cases.append(
          PlannedCase(id: "replication-5", kind: .replication(policy), loaders: (1...count).map { place($0) }))
      }
    }
    cases.append(PlannedCase(id: "s3-1", kind: .s3Direct, loaders: [place(1)]))
    for kind in [PlannedCase.Kind.s3Direct, .s3Planned] {
      for count in 1...4 {
        cases.append(PlannedCase(id: "s3-2", kind: kind, loaders: (1...count).map { place($0) }))
      }
      cases.append(PlannedCase(id: "s3-3", kind: kind, loaders: [place(1), place(1), place(1), place(2)]))
      cases.append(PlannedCase(id: "s3-4", kind: kind, loaders: [place(1, .a), place(1, .b), place(2), place(3)]))
    }
    return cases
  }
}
