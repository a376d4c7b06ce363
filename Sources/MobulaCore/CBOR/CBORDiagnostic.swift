extension CBORValue: CustomStringConvertible {
  /// The value in diagnostic notation (RFC 8949, section 8): `{"a": [1, h'00FF', null]}` and the like.
  package var description: String {
    switch self {
    case .unsigned(let number): return "\(number)"
    case .negative(let complement): return "\(-1 - Int128(complement))"
    case .bytes(let bytes): return "h'\(hexadecimal(bytes))'"
    case .text(let text): return quoted(text.text)
    case .array(let elements): return "[\(elements.map(\.description).joined(separator: ", "))]"
    case .map(let pairs): return "{\(pairs.map { "\($0.key): \($0.value)" }.joined(separator: ", "))}"
    case .tagged(2, .bytes(let bytes)) where bytes.count <= 64: return decimal(bytes)
    case .tagged(3, .bytes(let bytes)) where bytes.count <= 64: return "-" + decimal(successor(of: bytes))
    case .tagged(let number, let value): return "\(number)(\(value))"
    case .false: return "false"
    case .true: return "true"
    case .null: return "null"
    case .undefined: return "undefined"
    case .simple(let number): return "simple(\(number))"
    case .float(let number): return notation(of: number)
    }
  }
}

/// As in JSON, which has no other escapes that are needed.
private func quoted(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"", "\\": result += "\\\(scalar)"
    case "\n": result += "\\n"
    case "\r": result += "\\r"
    case "\t": result += "\\t"
    case "\u{0}"..<" ", "\u{7F}":
      let digits = String(scalar.value, radix: 16)
      result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result + "\""
}

private func notation(of number: Double) -> String {
  if number.isNaN { return "NaN" }
  if number.isInfinite { return number < 0 ? "-Infinity" : "Infinity" }
  let parts = "\(number)".split(separator: "e")
  guard parts.count == 2, let exponent = Int(parts[1]) else { return "\(number)" }
  return "\(parts[0])\(parts[0].contains(".") ? "" : ".0")e\(exponent < 0 ? "" : "+")\(exponent)"
}

/// The digits of the number that `bytes` are, most significant first.
private func decimal(_ bytes: [UInt8]) -> String {
  var digits: [UInt8] = [0]
  for byte in bytes {
    var carry = Int(byte)
    for place in digits.indices {
      carry += Int(digits[place]) << 8
      digits[place] = UInt8(carry % 10)
      carry /= 10
    }
    while carry > 0 {
      digits.append(UInt8(carry % 10))
      carry /= 10
    }
  }
  return digits.reversed().map { "\($0)" }.joined()
}

private func successor(of bytes: [UInt8]) -> [UInt8] {
  var bytes = bytes
  for place in bytes.indices.reversed() {
    bytes[place] &+= 1
    if bytes[place] != 0 { return bytes }
  }
  return [1] + bytes
}
