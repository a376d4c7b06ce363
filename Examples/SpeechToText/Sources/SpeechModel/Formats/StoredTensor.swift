/// A tensor as a checkpoint has it: row-major, of any alignment, in somebody else's bytes.
struct StoredTensor {
  enum Element: Hashable {
    case float32, float16, bfloat16
    /// Quantised, with one scale a row.
    case int8
    /// None that a weight may have; its name in the format.
    case other(String)

    /// In bytes; 0 where it isn't known.
    var size: Int {
      switch self {
      case .float32: 4
      case .float16, .bfloat16: 2
      case .int8: 1
      case .other: 0
      }
    }
  }

  let element: Element
  let shape: [Int]
  /// As many as the shape takes, if the element is known.
  let bytes: UnsafeRawBufferPointer
  /// For `int8`, one float32 for each index of the first dimension, which a quantised number is divided by.
  var scales: UnsafeRawBufferPointer?

  var count: Int { element.size == 0 ? 0 : bytes.count / element.size }

  /// How many numbers share a scale.
  private var rowCount: Int { max(1, count / max(1, shape.first ?? 1)) }

  /// Converts the numbers from `start` on; those that float32 can't hold become infinite or NaN.
  ///
  /// The caller stays within `count`: every read below is at an index under it.
  func convert(into output: UnsafeMutableBufferPointer<Float>, from start: Int) {
    precondition(start >= 0 && output.count <= count - start)
    guard let target = output.baseAddress, let source = bytes.baseAddress else { return }
    switch element {
    case .float32:
      UnsafeMutableRawPointer(target).copyMemory(from: source + 4 * start, byteCount: 4 * output.count)
    case .float16:
      let source = source + 2 * start
      for index in 0..<output.count {
        target[index] = float(half: source.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self))
      }
    case .bfloat16:
      let source = source + 2 * start
      for index in 0..<output.count {
        let bits = source.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)
        target[index] = Float(bitPattern: UInt32(bits) << 16)
      }
    case .int8, .other:
      for index in 0..<output.count { target[index] = number(start + index) }
    }
  }

  /// One number, at an index under `count`.
  func number(_ index: Int) -> Float {
    switch element {
    case .float32: bytes.loadUnaligned(fromByteOffset: 4 * index, as: Float.self)
    case .float16: float(half: bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self))
    case .bfloat16:
      Float(bitPattern: UInt32(bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) << 16)
    case .int8:
      Float(bytes.loadUnaligned(fromByteOffset: index, as: Int8.self))
        / (scales?.loadUnaligned(fromByteOffset: 4 * (index / rowCount), as: Float.self) ?? 0)
    case .other: .nan
    }
  }
}

/// An IEEE 754 half-precision number; both infinities become NaN, as no weight may be either.
///
/// Its exponent and fraction are moved into a float32 whose bias is 112 more, which a multiplication makes up for,
/// also for subnormal numbers; without branches, so that loops become vector code.
@inline(__always)
private func float(half bits: UInt16) -> Float {
  let magnitude = Float(bitPattern: UInt32(bits & 0x7FFF) << 13) * 0x1p112
  let value = bits & 0x7C00 == 0x7C00 ? Float.nan : magnitude
  return Float(bitPattern: value.bitPattern | UInt32(bits & 0x8000) << 16)
}
