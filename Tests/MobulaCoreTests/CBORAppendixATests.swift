import MobulaCore
import Testing

/// The examples of RFC 8949, appendix A. Where the RFC's notation keeps what a `CBORValue`
/// does not (indefinite lengths, escapes), the expected text is the value's plain notation.
struct CBORAppendixATests {
  private static let upTo25 = "[" + (1...25).map { "\($0)" }.joined(separator: ", ") + "]"

  /// Hexadecimal bytes, and the notation.
  static let preferred: [(String, String)] = [
    ("00", "0"), ("01", "1"), ("0a", "10"), ("17", "23"), ("1818", "24"), ("1819", "25"), ("1864", "100"),
    ("1903e8", "1000"), ("1a000f4240", "1000000"), ("1b000000e8d4a51000", "1000000000000"),
    ("1bffffffffffffffff", "18446744073709551615"), ("c249010000000000000000", "18446744073709551616"),
    ("3bffffffffffffffff", "-18446744073709551616"), ("c349010000000000000000", "-18446744073709551617"),
    ("20", "-1"), ("29", "-10"), ("3863", "-100"), ("3903e7", "-1000"),
    ("f90000", "0.0"), ("f98000", "-0.0"), ("f93c00", "1.0"), ("fb3ff199999999999a", "1.1"), ("f93e00", "1.5"),
    ("f97bff", "65504.0"), ("fa47c35000", "100000.0"), ("fa7f7fffff", "3.4028234663852886e+38"),
    ("fb7e37e43c8800759c", "1.0e+300"), ("f90001", "5.960464477539063e-8"), ("f90400", "6.103515625e-5"),
    ("f9c400", "-4.0"), ("fbc010666666666666", "-4.1"), ("f97c00", "Infinity"), ("f97e00", "NaN"),
    ("f9fc00", "-Infinity"), ("f4", "false"), ("f5", "true"), ("f6", "null"), ("f7", "undefined"),
    ("f0", "simple(16)"), ("f8ff", "simple(255)"),
    ("c074323031332d30332d32315432303a30343a30305a", #"0("2013-03-21T20:04:00Z")"#),
    ("c11a514b67b0", "1(1363896240)"), ("c1fb41d452d9ec200000", "1(1363896240.5)"),
    ("d74401020304", "23(h'01020304')"), ("d818456449455446", "24(h'6449455446')"),
    ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", #"32("http://www.example.com")"#),
    ("40", "h''"), ("4401020304", "h'01020304'"), ("60", #""""#), ("6161", #""a""#), ("6449455446", #""IETF""#),
    ("62225c", #""\"\\""#), ("62c3bc", "\"\u{FC}\""), ("63e6b0b4", "\"\u{6C34}\""), ("64f0908591", "\"\u{10151}\""),
    ("80", "[]"), ("83010203", "[1, 2, 3]"), ("8301820203820405", "[1, [2, 3], [4, 5]]"),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", upTo25),
    ("a0", "{}"), ("a201020304", "{1: 2, 3: 4}"), ("a26161016162820203", #"{"a": 1, "b": [2, 3]}"#),
    ("826161a161626163", #"["a", {"b": "c"}]"#),
    ("a56161614161626142616361436164614461656145", #"{"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}"#),
  ]

  /// The same, and the bytes in preferred serialization.
  static let others: [(String, String, String)] = [
    ("fa7f800000", "Infinity", "f97c00"), ("fa7fc00000", "NaN", "f97e00"), ("faff800000", "-Infinity", "f9fc00"),
    ("fb7ff0000000000000", "Infinity", "f97c00"), ("fb7ff8000000000000", "NaN", "f97e00"),
    ("fbfff0000000000000", "-Infinity", "f9fc00"), ("5f42010243030405ff", "h'0102030405'", "450102030405"),
    ("7f657374726561646d696e67ff", #""streaming""#, "6973747265616d696e67"), ("9fff", "[]", "80"),
    ("9f018202039f0405ffff", "[1, [2, 3], [4, 5]]", "8301820203820405"),
    ("9f01820203820405ff", "[1, [2, 3], [4, 5]]", "8301820203820405"),
    ("83018202039f0405ff", "[1, [2, 3], [4, 5]]", "8301820203820405"),
    ("83019f0203ff820405", "[1, [2, 3], [4, 5]]", "8301820203820405"),
    (
      "9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", upTo25,
      "98190102030405060708090a0b0c0d0e0f101112131415161718181819"
    ),
    ("bf61610161629f0203ffff", #"{"a": 1, "b": [2, 3]}"#, "a26161016162820203"),
    ("826161bf61626163ff", #"["a", {"b": "c"}]"#, "826161a161626163"),
    ("bf6346756ef563416d7421ff", #"{"Fun": true, "Amt": -2}"#, "a26346756ef563416d7421"),
  ]

  @Test(arguments: preferred) func preferredSerializationsRoundTrip(hex: String, notation: String) throws {
    let value = try CBORValue(decoding: bytes(hex: hex))
    #expect(value.description == notation)
    #expect(hexadecimal(value.encoded()) == hex)
  }

  @Test(arguments: others) func otherSerializationsDecode(hex: String, notation: String, preferred: String) throws {
    let value = try CBORValue(decoding: bytes(hex: hex))
    #expect(value.description == notation)
    #expect(hexadecimal(value.encoded()) == preferred)
  }

  /// RFC 8949, appendix F: what is not well-formed.
  @Test(arguments: [
    // Too little data.
    "18", "19", "1a", "1b", "1901", "1a0102", "1b01020304050607", "38", "58", "78", "98", "9a01ff00", "b8", "d8", "f8",
    "f900", "fa0000", "fb000000", "41", "61", "5affffffff00", "5bffffffffffffffff010203", "7affffffff00",
    "7b7fffffffffffffff010203", "81", "818181818181818181", "8200", "a1", "a20102", "a100", "a2000000", "c0",
    "5f4100", "7f6100", "9f", "9f0102", "bf", "bf01020102", "819f", "9f8000", "9f9f9f9f9fffffffff",
    "9f819f819f9fffffff",
    "9bffffffffffffffff", "bbffffffffffffffff", "bb7fffffffffffffff",
    // Reserved first bytes and simple values.
    "1c", "1d", "1e", "3c", "5d", "7e", "9c", "bd", "dc", "fc", "fd", "fe", "f800", "f801", "f818", "f81f",
    // Chunks of another kind, or indefinite themselves.
    "5f00ff", "5f21ff", "5f6100ff", "5f80ff", "5fa0ff", "5fc000ff", "5fe0ff", "7f4100ff", "5f5f4100ffff",
    "7f7f6100ffff",
    // Breaks where there is nothing to break, or half of a pair.
    "ff", "81ff", "8200ff", "a1ff", "a1ff00", "a100ff", "a20000ff", "9f81ff", "bf00ff", "bf000000ff", "c0ff",
    // Indefinite lengths where there are none, trailing bytes, text that is not in UTF-8, nothing at all.
    "1f", "3f", "df", "0000", "8000", "61ff", "62c0ff", "7f61c361bcff", "",
  ])
  func malformedBytesAreRefused(hex: String) {
    #expect { try CBORValue(decoding: bytes(hex: hex)) } throws: { ($0 as? MobulaError)?.code == .protocolViolation }
  }

  @Test func nestingIsLimited() throws {
    let allowed = [UInt8](repeating: 0x81, count: 64) + [0]
    #expect(try CBORValue(decoding: allowed).encoded() == allowed)
    for initial: UInt8 in [0x81, 0x9F, 0xC0] {
      #expect(throws: MobulaError.self) {
        try CBORValue(decoding: [UInt8](repeating: initial, count: 1_000_000) + [0])
      }
    }
  }
}
