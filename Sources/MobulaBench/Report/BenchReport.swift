public import FoundationEssentials
public import MobulaCore

/// What `mobula bench --json` writes: see `docs/bench-schema.md`, which describes every field.
public struct BenchReport: Codable, Hashable, Sendable {
  /// Of the schema.
  public var version = 1
  public var emulation: EmulationKind
  /// Bytes of the model.
  public var size: Int
  /// What every host's interface was shaped to, in bits per second; `nil` where nothing is shaped.
  public var nic: Int?
  /// Whether the hosts talked to each other through TLS.
  public var tls: Bool
  /// Bytes of payload per second between two hosts, as probed in this run; `nil` on loopback.
  public var lineRate: Int?
  public var cases: [BenchCase]

  public init(
    emulation: EmulationKind, size: Int, nic: Int? = nil, tls: Bool = false, lineRate: Int?, cases: [BenchCase] = []
  ) {
    self.emulation = emulation
    self.size = size
    self.nic = nic
    self.tls = tls
    self.lineRate = lineRate
    self.cases = cases
  }

  enum CodingKeys: String, CodingKey { case version, emulation, size, nic, tls, lineRate, cases }

  /// Fields without a value are written as null: readers find every key.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(version, forKey: .version)
    try container.encode(emulation, forKey: .emulation)
    try container.encode(size, forKey: .size)
    try container.encode(nic, forKey: .nic)
    try container.encode(tls, forKey: .tls)
    try container.encode(lineRate, forKey: .lineRate)
    try container.encode(cases, forKey: .cases)
  }

  /// The report as JSON text, keys sorted, with a line end.
  public func json() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(self) + Data("\n".utf8)
  }
}

/// Where loaders got the bytes from, for the cases that are run in several ways.
public enum BenchSources: String, Codable, Sendable {
  /// Every receiver from the host that has made the object.
  case origin
  /// Receivers forward what they have received.
  case relay
  /// Every loader from S3, for itself.
  case direct
  /// Through the plan: each byte leaves S3 once.
  case planned
}

/// One loader of a case.
public struct BenchLoader: Codable, Hashable, Sendable {
  public var host: String
  public var pod: String
  /// Until every byte could be read in its address space.
  public var seconds: Double
  /// Seconds of the pass over one byte of every page after that.
  public var touched: Double
  /// Bytes that came into the host's memory for this loader: 0 when the store had them already.
  public var bytesCopied: Int
  /// Why it has no model, where a case may end so; `seconds` are those until it was told.
  public var error: MobulaError?

  public init(
    host: String, pod: String, seconds: Double, touched: Double, bytesCopied: Int, error: MobulaError? = nil
  ) {
    self.error = error
    self.host = host
    self.pod = pod
    self.seconds = seconds
    self.touched = touched
    self.bytesCopied = bytesCopied
  }

  enum CodingKeys: String, CodingKey { case host, pod, seconds, touched, bytesCopied, error }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(host, forKey: .host)
    try container.encode(pod, forKey: .pod)
    try container.encode(seconds, forKey: .seconds)
    try container.encode(touched, forKey: .touched)
    try container.encode(bytesCopied, forKey: .bytesCopied)
    try container.encode(error, forKey: .error)
  }
}

/// One case: the medians of its runs.
public struct BenchCase: Codable, Hashable, Sendable {
  public var id: String
  public var sources: BenchSources?
  public var loaders: [BenchLoader]
  /// Seconds of the slowest loader.
  public var slowest: Double
  /// Seconds below which the network doesn't allow it; `nil` for same-host cases.
  public var limit: Double?
  /// `slowest / limit`.
  public var ratio: Double?
  /// Seconds of the slowest loader as the simulated network says, with the line rate of this run; `nil` for cases that
  /// it doesn't simulate.
  public var predicted: Double?
  /// Bytes that left S3, counted there; `nil` when the server doesn't count.
  public var s3Bytes: Int?
  /// Bytes that the hosts' interfaces received, headers included; `nil` where there are no interfaces to ask.
  public var wireBytes: Int?

  enum CodingKeys: String, CodingKey {
    case id, sources, loaders, slowest, limit, ratio, predicted, s3Bytes, wireBytes
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(id, forKey: .id)
    try container.encode(sources, forKey: .sources)
    try container.encode(loaders, forKey: .loaders)
    try container.encode(slowest, forKey: .slowest)
    try container.encode(limit, forKey: .limit)
    try container.encode(ratio, forKey: .ratio)
    try container.encode(predicted, forKey: .predicted)
    try container.encode(s3Bytes, forKey: .s3Bytes)
    try container.encode(wireBytes, forKey: .wireBytes)
  }
}
