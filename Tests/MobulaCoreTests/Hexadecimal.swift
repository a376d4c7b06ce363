/// The bytes that these hexadecimal digits are.
func bytes(hex: String) -> [UInt8] {
  let digits = Array(hex.utf8).compactMap { Character(UnicodeScalar($0)).hexDigitValue }
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
