import Glibc

/// Nanoseconds of the monotonic clock, which the vDSO reads without a system call on the usual machines.
@inline(__always)
func nanoseconds() -> Int {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Times `body` once, in seconds.
func seconds(_ body: () throws -> Void) rethrows -> Double {
  let start = nanoseconds()
  try body()
  return Double(nanoseconds() - start) / 1e9
}

/// Values of one kind, for their best and their middle.
struct Samples {
  private(set) var values: [Double] = []

  mutating func add(_ value: Double) { values.append(value) }

  var best: Double { values.max() ?? 0 }
  var least: Double { values.min() ?? 0 }
  var median: Double { quantile(0.5) }

  /// The value below which this share of all lie.
  func quantile(_ share: Double) -> Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return 0 }
    return sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
  }
}

/// How often a second `body` can be called, in batches of `batch` calls each during `duration` seconds.
func rate(batch: Int, for duration: Double, _ body: () throws -> Void) rethrows -> Samples {
  var samples = Samples()
  let end = nanoseconds() + Int(duration * 1e9)
  repeat {
    let time = try seconds { for _ in 0..<batch { try body() } }
    samples.add(Double(batch) / time)
  } while nanoseconds() < end
  return samples
}

/// Nanoseconds of single calls, two readings of the clock each.
func singles(_ count: Int, _ body: () throws -> Void) rethrows -> Samples {
  // Before the first reading: memory for the samples is not to be found between two of them.
  var times = [Int32](repeating: 1, count: count)
  for index in 0..<count {
    let start = nanoseconds()
    try body()
    times[index] = Int32(clamping: nanoseconds() - start)
  }
  var samples = Samples()
  for time in times { samples.add(Double(time)) }
  return samples
}
