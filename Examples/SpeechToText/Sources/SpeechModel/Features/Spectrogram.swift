internal import COpenBLAS

/// Power spectra of frames as a matrix multiplication: the window and the Fourier transform are one matrix.
///
/// It is computed in double precision, as the logarithm that follows makes the smallest differences visible.
struct Spectrogram: Sendable {
  /// In samples, without the zeros that fill a frame up to `transformSize`.
  let frameSize: Int
  /// Frequencies from 0 up to half of the sampling rate.
  let bins: Int
  /// [frameSize, 2 bins]: cosines, then sines, both times the window.
  private let basis: [Double]

  /// Frames that are transformed at once.
  static let block = 128

  init(frameSize: Int, transformSize: Int, window: (Int) -> Double) {
    self.frameSize = frameSize
    bins = transformSize / 2 + 1
    let angles = (0..<transformSize).map { 2 * Double.pi * Double($0) / Double(transformSize) }
    let (cosines, sines) = (angles.map(cosine), angles.map(sine))
    var basis = [Double](repeating: 0, count: frameSize * 2 * bins)
    for sample in 0..<frameSize {
      let weight = window(sample)
      for bin in 0..<bins {
        let step = sample * bin % transformSize
        basis[sample * 2 * bins + bin] = cosines[step] * weight
        basis[sample * 2 * bins + bins + bin] = sines[step] * weight
      }
    }
    self.basis = basis
  }

  /// The power of each frequency in `count` frames: [count, bins].
  ///
  /// - Parameters:
  ///   - frames: The first frame.
  ///   - stride: From one frame to the next; below `frameSize` they overlap.
  func power(_ frames: UnsafePointer<Double>, stride: Int, count: Int) -> [Double] {
    var transformed = [Double](repeating: 0, count: count * 2 * bins)
    multiply(frames, stride: stride, basis, &transformed, rows: count, columns: 2 * bins, inner: frameSize)
    return [Double](unsafeUninitializedCapacity: count * bins) { power, initialized in
      for row in 0..<count {
        for bin in 0..<bins {
          let real = transformed[row * 2 * bins + bin]
          let imaginary = transformed[row * 2 * bins + bins + bin]
          power[row * bins + bin] = real * real + imaginary * imaginary
        }
      }
      initialized = count * bins
    }
  }
}

/// `c` = `a` `b`, with `a` [rows, inner] and `b` [inner, columns].
///
/// - Parameter stride: From one row of `a` to the next. BLAS doesn't let rows overlap, so longer ones are taken in
///   parts, whose products are added up.
func multiply(
  _ a: UnsafePointer<Double>, stride: Int, _ b: [Double], _ c: inout [Double], rows: Int, columns: Int, inner: Int
) {
  _ = oneThreadEach
  b.withUnsafeBufferPointer { b in
    guard let b = b.baseAddress else { return }
    for first in Swift.stride(from: 0, to: inner, by: stride) {
      cblas_dgemm(
        CblasRowMajor, CblasNoTrans, CblasNoTrans, blasint(rows), blasint(columns), blasint(min(stride, inner - first)),
        1, a + first, blasint(stride), b + first * columns, blasint(columns), first == 0 ? 0 : 1, &c, blasint(columns))
    }
  }
}
