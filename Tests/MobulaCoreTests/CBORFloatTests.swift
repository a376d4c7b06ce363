import MobulaTestKit
import Testing

@testable import MobulaCore

struct CBORFloatTests {
  private func roundTrip(_ number: Double) throws {
    let bytes = try CBOREncoder().encode(number)
    #expect(try CBORDecoder().decode(Double.self, from: bytes).bitPattern == number.bitPattern, "\(number)")
  }

  /// Every half is written in three bytes, whichever width it comes from, and comes back bit by bit: NaNs too.
  @Test func everyHalfKeepsItsBits() throws {
    for bits in UInt16.min...UInt16.max {
      let single = CBORFloat.single(fromHalf: bits)
      #expect(CBORFloat.half(exactly: single) == bits)
      let double = CBORFloat.double(fromSingle: single)
      #expect(CBORFloat.single(exactly: double) == single)
      let encoded: [UInt8] = [0xF9, UInt8(bits >> 8), UInt8(bits & 0xFF)]
      #expect(try CBOREncoder().encode(Double(bitPattern: double)) == encoded)
      #expect(try CBOREncoder().encode(Float(bitPattern: single)) == encoded)
      #expect(try CBORDecoder().decode(Double.self, from: encoded).bitPattern == double)
      #expect(try CBORDecoder().decode(Float.self, from: encoded).bitPattern == single)
    }
  }

  /// The value of a half by its definition: RFC 8949, appendix D.
  @Test func halvesHaveTheRightValue() {
    for bits in UInt16.min...0x7BFF {
      let (exponent, fraction) = (Int(bits >> 10), Double(bits & 0x3FF))
      let value =
        exponent == 0
        ? Double(sign: .plus, exponent: -24, significand: fraction)
        : Double(sign: .plus, exponent: exponent - 25, significand: fraction + 1024)
      #expect(Double(Float(bitPattern: CBORFloat.single(fromHalf: bits))) == value)
    }
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func randomNumbersKeepTheirBits(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<20_000 {
      let bits = generator.next()
      try roundTrip(Double(bitPattern: bits))
      // A number that a Float can hold is written as one, and so is found among the subnormal ones.
      let single = Float(bitPattern: UInt32(truncatingIfNeeded: bits))
      guard !single.isNaN else { continue }
      #expect(CBORFloat.double(fromSingle: single.bitPattern) == Double(single).bitPattern)
      #expect(CBORFloat.single(exactly: Double(single).bitPattern) == single.bitPattern)
      try roundTrip(Double(single))
      let narrowed = Double(bitPattern: bits)
      #expect(
        (CBORFloat.single(exactly: bits) != nil) == (narrowed.isNaN || Double(Float(narrowed)) == narrowed)
          || narrowed.isNaN)
    }
    for exponent in -1074...1023 { try roundTrip(Double(sign: .minus, exponent: exponent, significand: 1)) }
    for exponent in -149...(-120) {
      let single = Float(sign: .plus, exponent: exponent, significand: 1)
      #expect(CBORFloat.single(exactly: Double(single).bitPattern) == single.bitPattern)
    }
  }

  @Test func numbersOfOtherKindsAreTakenWhenTheyFit() throws {
    let decoder = CBORDecoder()
    #expect(try decoder.decode(Double.self, from: [0x18, 100]) == 100)
    #expect(try decoder.decode(Double.self, from: [0x20]) == -1)
    #expect(try decoder.decode(Float.self, from: CBOREncoder().encode(0.1)) == 0.1)
    #expect(throws: DecodingError.self) { try decoder.decode(Float.self, from: CBOREncoder().encode(1e300)) }
    #expect(throws: DecodingError.self) { try decoder.decode(Double.self, from: CBOREncoder().encode(UInt64.max)) }
    #expect(throws: DecodingError.self) { try decoder.decode(Int.self, from: CBOREncoder().encode(1.0)) }
  }
}
