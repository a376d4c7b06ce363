/// Eight numbers at a time: two registers on every x86-64 and two on every arm64, so no processor is asked for more
/// than its baseline. Multiplication and addition stay apart, as a fused one would be a call into the C library there.
typealias Lanes = SIMD8<Float>

extension UnsafePointer<Float> {
  /// The eight numbers from here on, at any alignment.
  @inline(__always)
  var lanes: Lanes { UnsafeRawPointer(self).loadUnaligned(as: Lanes.self) }
}

extension UnsafeMutablePointer<Float> {
  /// The eight numbers from here on, at any alignment.
  @inline(__always)
  var lanes: Lanes {
    get { UnsafeRawPointer(self).loadUnaligned(as: Lanes.self) }
    nonmutating set { UnsafeMutableRawPointer(self).storeBytes(of: newValue, as: Lanes.self) }
  }
}

/// eˣ with a relative error below 3·10⁻⁷ around zero and 10⁻⁵ at -87. What is below -87 counts as -87, so that the
/// result is never denormal; `x` has to stay below 88.
///
/// 2 to the whole part of x·log₂e comes from the exponent's bits: adding 1.5·2²³ rounds to an integer and leaves it in
/// the lowest ones. The rest, between -½ and ½, goes through the polynomial of degree 5 with the least largest
/// relative error (7.5·10⁻⁸), found by Lawson's iteration.
@inline(__always)
func exponential(_ x: Lanes) -> Lanes {
  let power = x.replacing(with: -87, where: x .< Lanes(repeating: -87)) * 1.442695040888963
  let shifted = power + 12_582_912
  let rest = power - (shifted - 12_582_912)
  var p = rest * 0.0013276471781405394 + 0.009675541332754715
  p = p * rest + 0.055507132741507675
  p = p * rest + 0.2402211972388223
  p = p * rest + 0.6931469670643616
  p = p * rest + 1.0000000716546718
  let exponent = unsafeBitCast(shifted, to: SIMD8<Int32>.self) &<< 23
  return unsafeBitCast(unsafeBitCast(p, to: SIMD8<Int32>.self) &+ exponent, to: Lanes.self)
}

/// x·Φ(x), the exact GELU, with an absolute error below 10⁻⁶: the error function after Abramowitz and Stegun, 7.1.26.
@inline(__always)
func gelu(_ x: Lanes) -> Lanes {
  let negative = x .< Lanes(repeating: 0)
  let magnitude = x.replacing(with: -x, where: negative)
  let z = magnitude * 0.7071067811865476
  let t = 1 / (z * 0.3275911 + 1)
  var p = t * 1.061405429 - 1.453152027
  p = p * t + 1.421413741
  p = p * t - 0.284496736
  p = p * t + 0.254829592
  // Half of erfc(z): what Φ lacks of one on the right, and all it is on the left.
  let tail = p * t * exponential(-(z * z)) * 0.5
  return x * (1 - tail).replacing(with: tail, where: negative)
}

/// Calls `whole` with the offset of each full group of eight, then `rest` for each number after them.
@inline(__always)
func inLanes(_ count: Int, _ whole: (Int) -> Void, rest: (Int) -> Void) {
  var index = 0
  while index + 8 <= count {
    whole(index)
    index += 8
  }
  while index < count {
    rest(index)
    index += 1
  }
}

/// The sum of the products of `count` numbers.
@inline(__always)
func dot(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ count: Int) -> Float {
  var sums = Lanes.zero
  var sum: Float = 0
  inLanes(count) {
    sums += (a + $0).lanes * (b + $0).lanes
  } rest: {
    sum += a[$0] * b[$0]
  }
  return sums.sum() + sum
}

/// Adds `scale` times `x` to `y`.
@inline(__always)
func add(_ scale: Float, times x: UnsafePointer<Float>, to y: UnsafeMutablePointer<Float>, _ count: Int) {
  inLanes(count) {
    (y + $0).lanes += (x + $0).lanes * scale
  } rest: {
    y[$0] += x[$0] * scale
  }
}

/// The largest of `count` numbers; minus infinity for none. A NaN may be passed over.
@inline(__always)
func maximum(_ x: UnsafePointer<Float>, _ count: Int) -> Float {
  var maxima = Lanes(repeating: -.infinity)
  var maximum = -Float.infinity
  inLanes(count) {
    let next = (x + $0).lanes
    maxima.replace(with: next, where: next .> maxima)
  } rest: {
    maximum = x[$0] > maximum ? x[$0] : maximum
  }
  return max(maximum, maxima.max())
}

/// Puts exp(x - `maximum`) in the place of each of `count` numbers and returns their sum.
@inline(__always)
func exponentials(_ x: UnsafeMutablePointer<Float>, minus maximum: Float, _ count: Int) -> Float {
  var sums = Lanes.zero
  inLanes(count / 8 * 8) {
    let result = exponential((x + $0).lanes - maximum)
    (x + $0).lanes = result
    sums += result
  } rest: { _ in
  }
  let tail = count % 8
  guard tail > 0 else { return sums.sum() }
  var last = Lanes(repeating: maximum - 87)
  for lane in 0..<tail { last[lane] = x[count - tail + lane] }
  let results = exponential(last - maximum)
  var sum = sums.sum()
  for lane in 0..<tail {
    x[count - tail + lane] = results[lane]
    sum += results[lane]
  }
  return sum
}

/// Puts exp(x - max) / Σ in the place of each of `count` numbers.
@inline(__always)
func softmax(_ x: UnsafeMutablePointer<Float>, _ count: Int) {
  let factor = 1 / exponentials(x, minus: maximum(x, count), count)
  inLanes(count) {
    (x + $0).lanes *= factor
  } rest: {
    x[$0] *= factor
  }
}

/// The sum of exp(x - `maximum`) over `count` numbers, which stay.
func sumOfExponentials(_ x: UnsafePointer<Float>, minus maximum: Float, _ count: Int) -> Float {
  var sums = Lanes.zero
  var sum: Float = 0
  inLanes(count) {
    sums += exponential((x + $0).lanes - maximum)
  } rest: {
    sum += exponential(Lanes(repeating: x[$0] - maximum))[0]
  }
  return sums.sum() + sum
}
