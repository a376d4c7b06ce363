import MobulaCore
import MobulaStore

/// The rows with times. The store is in this process, each client in one of its own.
enum TimeBenchmarks {
  static let all = [
    Benchmark(names: GetTimes.names, isTimed: true) { try GetTimes.rows($0) },
    Benchmark(names: [PutTimes.smallName], isTimed: true) { try PutTimes.smallRows($0) },
    Benchmark(names: [PutTimes.createsName], isTimed: true) { try PutTimes.createRows($0) },
    Benchmark(names: [PutTimes.bigName], isTimed: true) { try PutTimes.bigRows($0) },
  ]
}

extension Samples {
  /// Best and median of rates.
  func rates(_ name: String, _ unit: String, per divisor: Double) -> [Figure] {
    [
      Figure(name: "\(name), best", value: best / divisor, unit: unit),
      Figure(name: "\(name), median", value: median / divisor, unit: unit),
    ]
  }

  /// Quantiles of times in nanoseconds.
  func quantiles(_ name: String) -> [Figure] {
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map {
      Figure(name: "\(name), \($0.0)", value: quantile($0.1), unit: "ns")
    }
  }
}
