internal import MobulaCore

/// SigV4's URI encoding: every byte of the UTF-8 form except letters, digits
/// and `-._~` becomes `%XX` in upper case; `/` stays where `keepingSlashes`.
func percentEncoded(_ text: String, keepingSlashes: Bool = false) -> String {
  let digits = Array("0123456789ABCDEF".utf8)
  var result: [UInt8] = []
  for byte in text.utf8 {
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
      UInt8(ascii: "~"):
      result.append(byte)
    case UInt8(ascii: "/") where keepingSlashes:
      result.append(byte)
    default:
      result += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
    }
  }
  return String(decoding: result, as: UTF8.self)
}

/// The text that S3 writes as `text` in a listing with `encoding-type=url`, where `+` is a space.
///
/// - Throws: `MobulaError` (`invalidArgument`) when its bytes are no UTF-8.
func percentDecoded(_ text: String) throws(MobulaError) -> String {
  var result: [UInt8] = []
  var rest = text.utf8[...]
  while let byte = rest.popFirst() {
    if byte == UInt8(ascii: "%"), let digits = String(rest.prefix(2)), digits.utf8.count == 2,
      let value = UInt8(digits, radix: 16)
    {
      result.append(value)
      rest = rest.dropFirst(2)
    } else {
      result.append(byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
    }
  }
  guard let decoded = String(validating: result, as: UTF8.self) else {
    throw MobulaError(
      .invalidArgument,
      "The key \(printable(bytes: result)) in S3 is not in UTF-8: copy the object to a key that is, and fetch that.")
  }
  return decoded
}
