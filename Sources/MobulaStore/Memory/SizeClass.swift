/// The sizes of slots: multiples of 64 bytes up to 1 KiB, then eight steps for each doubling up to 32 KiB.
///
/// A region so wastes less than 64 bytes, or less than an eighth of its size.
enum SizeClass {
  /// Every slot is a multiple of this many bytes, as a value's buffers must begin at one.
  static let unit = 64
  static let count = 56
  /// Bytes of the largest slot.
  static let largest = 32_768

  /// The class of the smallest slot of at least `size` bytes, from 1 to `largest`.
  @inline(__always)
  static func index(for size: Int) -> Int {
    if size <= 1024 { return (size - 1) >> 6 }
    let last = size - 1
    let exponent = Int.bitWidth - 1 - last.leadingZeroBitCount
    return 16 + (exponent - 10) * 8 + (last >> (exponent - 3)) & 7
  }

  /// Bytes of a slot of class `index`.
  @inline(__always)
  static func slotSize(_ index: Int) -> Int {
    if index < 16 { return (index + 1) * unit }
    return ((index & 7) + 9) << (7 + (index - 16) >> 3)
  }
}
