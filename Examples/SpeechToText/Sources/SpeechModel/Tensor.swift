/// Float32 numbers in row-major order that lie in memory of somebody else: a mapped model,
/// or a workspace. It is valid as long as its owner is; it owns nothing.
public struct Tensor {
  /// The first number; 64-byte aligned in a normalised model.
  public let base: UnsafePointer<Float>
  /// The extent of each dimension, outermost first; empty for a scalar.
  public let shape: [Int]

  public init(base: UnsafePointer<Float>, shape: [Int]) {
    self.base = base
    self.shape = shape
  }

  /// How many numbers there are.
  public var count: Int { shape.reduce(1, *) }
}
