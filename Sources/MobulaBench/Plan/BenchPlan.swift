import MobulaCore
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
    /// The model is an object that was made in pod `a` of host 0.
    case replication(SourcePolicy)
    /// Every loader downloads for itself.
    case s3Direct
    /// The model is fetched from S3 through the stores.
    case s3Planned
  }

  var id: String
  var kind: Kind
  var loaders: [LoaderPlace]

  /// How the report names the sources; `nil` where the issue has no choice of them.
  var sources: BenchSources? {
    switch kind {
    case .replication(let policy): id == "replication-5" ? (policy == .origin ? .origin : .relay) : nil
    case .s3Direct: id == "s3-1" ? nil : .direct
    case .s3Planned: .planned
    }
  }

  /// Whether a byte has to leave the maker's host; a network's limit means nothing otherwise.
  var crossesNetwork: Bool {
    if case .replication = kind { return loaders.contains { $0.host != BenchPlan.maker.host } }
    return true
  }
}

/// The cases of the comparison, each a pure list of who loads where.
enum BenchPlan {
  /// Hosts that the cases need: the maker's and five more.
  static let hosts = 6
  static let maker = LoaderPlace(host: 0, pod: .a)

  /// - Throws: `MobulaError` (`invalidArgument`) for a case that there is not.
  static func cases(_ chosen: [String]) throws(MobulaError) -> [PlannedCase] {
    let known = all().map(\.id)
    for id in chosen where !known.contains(id) {
      var names: [String] = []
      for name in known where !names.contains(name) { names.append(name) }
      throw MobulaError(.invalidArgument, "There is no case \"\(id)\": choose among \(names.joined(separator: ", ")).")
    }
    return chosen.isEmpty ? all() : all().filter { chosen.contains($0.id) }
  }

  private static func all() -> [PlannedCase] {
    func place(_ host: Int, _ pod: LoaderPlace.PodLetter = .a) -> LoaderPlace { LoaderPlace(host: host, pod: pod) }
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
