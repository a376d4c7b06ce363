/// Weights of each frequency in each band: triangles.
struct MelFilterBank: Sendable {
  let bands: Int
  private let bins: Int
  /// [bins, bands]
  private let weights: [Double]

  /// - Parameter weight: Of a frequency's bin in a band.
  init(bands: Int, bins: Int, weight: (_ bin: Int, _ band: Int) -> Double) {
    self.bands = bands
    self.bins = bins
    weights = (0..<bins * bands).map { weight($0 / bands, $0 % bands) }
  }

  /// The energy in each band: [rows, bands] from power spectra [rows, bins].
  func energies(_ power: [Double], rows: Int) -> [Double] {
    var energies = [Double](repeating: 0, count: rows * bands)
    power.withUnsafeBufferPointer { power in
      guard let base = power.baseAddress else { return }
      multiply(base, stride: bins, weights, &energies, rows: rows, columns: bands, inner: bins)
    }
    return energies
  }
}
