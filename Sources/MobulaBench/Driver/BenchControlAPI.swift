import MobulaCore
import MobulaWire

/// What the bench answers to its driver, which runs inside an emulated host and
/// sees neither the other hosts' interfaces nor the S3 server's books.
enum BenchControlAPI {
  static let counters = RPCMethod<Empty, BenchCounters>("bench.counters")
  static let finished = RPCMethod<FinishedRun, Empty>("bench.finished")
  /// Makes a fault happen.
  static let fault = RPCMethod<BenchFault, Empty>("bench.fault")
  static let failed = RPCMethod<DriverFailure, Empty>("bench.failed")
}

struct BenchCounters: Codable, Sendable {
  /// Bytes that the hosts' interfaces received, all together; `nil` where hosts have none.
  var received: Int?
  /// Bytes that the S3 server sent; `nil` for one that does not tell.
  var fromS3: Int?
}

/// One run of one case.
struct FinishedRun: Codable, Sendable {
  /// The case's position in the plan.
  var index: Int
  var loaders: [BenchLoader]
  var fromS3: Int?
  var received: Int?
  /// When the fault had happened, from the common start; `nil` when it had not when all had ended.
  var faultSeconds: Double?
}

/// Why the driver is about to end.
struct DriverFailure: Codable, Sendable {
  var error: MobulaError
}

/// What the driver is to do; given to it as JSON in its environment.
struct DriverOrders: Codable, Sendable {
  static let variable = "MOBULA_BENCH_DRIVER"

  var control: Endpoint
  var token: String
  var cases: [String]
  /// Which of these.
  var first: Int
  var count: Int
  var runs: Int
  var model: SyntheticModel
  /// `s3://bucket/key` of the model.
  var url: String
  var s3Endpoint: String
}
