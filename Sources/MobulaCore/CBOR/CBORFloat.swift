/// Conversions between the widths of IEEE 754 numbers on bit patterns alone, so
/// that NaNs keep their payload: the processor's own conversions make them quiet.
/// Narrowing gives `nil` for what the narrower format can't hold exactly.
enum CBORFloat {
  static func double(fromSingle bits: UInt32) -> UInt64 {
    widen(UInt64(bits), exponentBits: 8, fractionBits: 23, to: 11, 52)
  }

  static func single(fromHalf bits: UInt16) -> UInt32 {
    UInt32(widen(UInt64(bits), exponentBits: 5, fractionBits: 10, to: 8, 23))
  }

  static func single(exactly bits: UInt64) -> UInt32? {
    narrow(bits, exponentBits: 11, fractionBits: 52, to: 8, 23).map { UInt32($0) }
  }

  static func half(exactly bits: UInt32) -> UInt16? {
    narrow(UInt64(bits), exponentBits: 8, fractionBits: 23, to: 5, 10).map { UInt16($0) }
  }

  private static func widen(
    _ bits: UInt64, exponentBits: UInt64, fractionBits: UInt64, to wideExponentBits: UInt64, _ wideFractionBits: UInt64
  ) -> UInt64 {
    let sign = bits >> (exponentBits + fractionBits)
    let largest = (1 << exponentBits as UInt64) - 1
    let wideLargest = (1 << wideExponentBits as UInt64) - 1
    var exponent = bits >> fractionBits & largest
    var fraction = bits & ((1 << fractionBits) - 1)
    if exponent == largest {
      exponent = wideLargest
    } else if exponent != 0 {
      exponent += (wideLargest - largest) >> 1
    } else if fraction != 0 {
      // A subnormal number is a normal one where there is more room for the exponent.
      let shift = fractionBits - (63 - UInt64(fraction.leadingZeroBitCount))
      fraction = fraction << shift & ((1 << fractionBits) - 1)
      exponent = (wideLargest - largest) >> 1 + 1 - shift
    }
    return sign << (wideExponentBits + wideFractionBits) | exponent << wideFractionBits
      | fraction << (wideFractionBits - fractionBits)
  }

  private static func narrow(
    _ bits: UInt64, exponentBits: UInt64, fractionBits: UInt64, to slimExponentBits: UInt64, _ slimFractionBits: UInt64
  ) -> UInt64? {
    let sign = (bits >> (exponentBits + fractionBits)) << (slimExponentBits + slimFractionBits)
    let largest = (1 << exponentBits as UInt64) - 1
    let slimLargest = (1 << slimExponentBits as UInt64) - 1
    let exponent = bits >> fractionBits & largest
    let fraction = bits & ((1 << fractionBits) - 1)
    if exponent == 0 { return fraction == 0 ? sign : nil }

    let lost = fractionBits - slimFractionBits
    let difference = (largest - slimLargest) >> 1
    if exponent == largest || exponent > difference && exponent - difference < slimLargest {
      guard fraction & ((1 << lost) - 1) == 0 else { return nil }
      let slim = exponent == largest ? slimLargest : exponent - difference
      return sign | slim << slimFractionBits | fraction >> lost
    }
    // What is below the normal numbers may still be one of the subnormal.
    guard exponent <= difference, difference - exponent < slimFractionBits else { return nil }
    let shift = lost + difference - exponent + 1
    let whole = fraction | 1 << fractionBits
    return whole & ((1 << shift) - 1) == 0 ? sign | whole >> shift : nil
  }
}
