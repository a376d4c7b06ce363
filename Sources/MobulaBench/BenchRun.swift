/// What one run of a case found.
public struct BenchRun: Hashable, Sendable {
  /// In the same order in every run of a case.
  public var loaders: [BenchLoader]
  public var s3Bytes: Int?
  public var wireBytes: Int?
  /// When the case's fault had happened, from the common start; `nil` without one.
  public var faultSeconds: Double?

  public init(loaders: [BenchLoader], s3Bytes: Int?, wireBytes: Int?, faultSeconds: Double? = nil) {
    self.faultSeconds = faultSeconds
    self.loaders = loaders
    self.s3Bytes = s3Bytes
    self.wireBytes = wireBytes
  }

  var slowest: Double { loaders.map(\.seconds).max() ?? 0 }
}

extension BenchCase {
  /// The medians of `runs`, of which there is at least one, all with the same loaders.
  ///
  /// - Parameters:
  ///   - size: bytes of the model. The limit is that of one NIC carrying it once; where one NIC has to carry
  ///     it k times (`direct` with k loaders on one host, `origin` with k hosts), the ratio shows it as about k.
  ///   - lineRate: bytes per second; `nil` for same-host cases and on loopback: no limit then,
  ///     nor where a loader has no model.
  ///   - predicted: what the simulation says of the slowest loader.
  public init(
    id: String, sources: BenchSources?, runs: [BenchRun], size: Int, lineRate: Double?, predicted: Double? = nil
  ) {
    precondition(!runs.isEmpty, "a case has at least one run")
    let loaders = runs[0].loaders.indices.map { index in
      let all = runs.map { $0.loaders[index] }
      return BenchLoader(
        host: all[0].host, pod: all[0].pod, seconds: median(all.map(\.seconds)), touched: median(all.map(\.touched)),
        bytesCopied: lowerMedian(all.map(\.bytesCopied)), error: all.lazy.compactMap(\.error).first)
    }
    self.id = id
    self.sources = sources
    self.loaders = loaders
    slowest = median(runs.map(\.slowest))
    // Who has nothing wasn't slow.
    limit = loaders.contains { $0.error != nil } ? nil : lineRate.map { Double(size) / $0 }
    self.predicted = predicted
    ratio = limit.map { [slowest] in slowest / $0 }
    s3Bytes = known(runs.map(\.s3Bytes)).map(lowerMedian)
    wireBytes = known(runs.map(\.wireBytes)).map(lowerMedian)
  }
}

/// The middle of `values`, or the mean of the middle two.
func median(_ values: [Double]) -> Double {
  let sorted = values.sorted()
  return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
}

/// The middle of `values`, or the lower of the middle two: always one that was measured.
func lowerMedian(_ values: [Int]) -> Int { values.sorted()[(values.count - 1) / 2] }

/// All of the values, or `nil` when one of them is unknown.
private func known(_ values: [Int?]) -> [Int]? {
  let known = values.compactMap { $0 }
  return known.count == values.count ? known : nil
}
