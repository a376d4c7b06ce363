/// Converts a sampling rate, a piece at a time: a polyphase filter with a sinc that is windowed after Kaiser.
///
/// The sinc ends 48 zero crossings from its middle. What lies below 87% of the lower rate's half passes, and what lies
/// above that half is damped by 90 dB and more.
struct Resampler {
  /// Both rates without their common factors: `up` samples come out of `down`.
  private let up: Int
  private let down: Int
  private let taps: Int
  /// [up, taps]: the filter for each of the fractions of a sample that occur.
  private let filters: [Float]
  /// Samples that are still needed; the first is number `firstKept` of all, with `taps` / 2 zeros before number 0.
  private var kept: [Float]
  private var firstKept: Int
  private var received = 0
  private var produced = 0

  private static let zeroCrossings = 48.0
  /// The middle of the transition, where half of the amplitude passes.
  private static let middle = 0.93
  private static let beta = 10.0

  /// - Parameters: Rates in Hz, positive and at most 200,000.
  init(from: Int, to: Int) {
    var (a, b) = (from, to)
    while b != 0 { (a, b) = (b, a % b) }
    (up, down) = (to / a, from / a)
    let cutoff = min(1, Double(up) / Double(down)) * Self.middle
    let half = Int((Self.zeroCrossings / cutoff).rounded(.up))
    let taps = 2 * half
    var filters: [Float] = []
    filters.reserveCapacity(up * taps)
    for phase in 0..<up {
      let fraction = Double(phase) / Double(up)
      let weights = (0..<taps).map { tap in
        Self.weight(Double(tap - half + 1) - fraction, cutoff: cutoff, half: Double(half))
      }
      let sum = weights.reduce(0, +)
      filters += weights.map { Float($0 / sum) }
    }
    self.filters = filters
    self.taps = taps
    kept = Array(repeating: 0, count: half)
    firstKept = -half
  }

  /// Appends what follows from some more samples.
  mutating func resample(_ samples: some Sequence<Float>, into output: inout [Float]) {
    if up == down {
      output.append(contentsOf: samples)
      return
    }
    let before = kept.count
    kept.append(contentsOf: samples)
    received += kept.count - before
    produce(into: &output, last: firstKept + kept.count)
  }

  /// Appends what is left when there are no more samples.
  mutating func finish(into output: inout [Float]) {
    guard up != down else { return }
    let total = (received * up + down - 1) / down
    kept.append(contentsOf: repeatElement(0, count: taps))
    produce(into: &output, last: firstKept + kept.count, total: total)
  }

  /// - Parameter last: The number of samples that are there.
  private mutating func produce(into output: inout [Float], last: Int, total: Int = .max) {
    let half = taps / 2
    filters.withUnsafeBufferPointer { filters in
      kept.withUnsafeBufferPointer { kept in
        guard let filters = filters.baseAddress, let kept = kept.baseAddress else { return }
        while produced < total {
          // Hours of audio at 200 kHz are far from overflow.
          let position = produced * down
          let first = position / up - half + 1
          guard first + taps <= last else { break }
          output.append(dot(kept + (first - firstKept), filters + position % up * taps, taps))
          produced += 1
        }
      }
    }
    let unneeded = min(kept.count, produced * down / up - half + 1 - firstKept)
    if unneeded > 0 {
      kept.removeFirst(unneeded)
      firstKept += unneeded
    }
  }

  private static func weight(_ time: Double, cutoff: Double, half: Double) -> Double {
    let inside = 1 - time * time / (half * half)
    guard inside > 0 else { return 0 }
    let angle = .pi * time * cutoff
    return (angle == 0 ? 1 : sine(angle) / angle) * bessel(beta * inside.squareRoot())
  }

  /// The modified Bessel function of the first kind and order zero, by its series.
  private static func bessel(_ x: Double) -> Double {
    var (term, sum, k) = (1.0, 1.0, 1.0)
    while term > sum * 1e-12 {
      term *= x * x / (4 * k * k)
      sum += term
      k += 1
    }
    return sum
  }
}
