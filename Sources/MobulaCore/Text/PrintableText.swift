extension StringProtocol {
  /// The text for people, in one line: what a terminal would act on, or nobody sees, is escaped as in Swift (`\n`,
  /// `\u{202E}`), so that no name can move the cursor, turn the direction of writing or look like another line.
  ///
  /// Escaped are control characters, marks of direction, separators of lines, what has no width, and what is no character.
  package var printable: String { escaped(keepingLines: false) }

  /// As `printable`, for a text of several lines, which stay so.
  package var printableLines: String { escaped(keepingLines: true) }

  private func escaped(keepingLines: Bool) -> String {
    // Nearly every text is ASCII without any of these.
    if utf8.allSatisfy({ 0x20..<0x7F ~= $0 || (keepingLines && $0 == 0x0A) }) { return String(self) }
    var result = ""
    for scalar in unicodeScalars {
      switch scalar {
      case "\n" where keepingLines: result.unicodeScalars.append(scalar)
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case _ where scalar.isHidden: result += "\\u{\(String(scalar.value, radix: 16, uppercase: true))}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}

extension Unicode.Scalar {
  /// Whether it is nothing to be seen, or changes how others are.
  fileprivate var isHidden: Bool {
    switch value {
    case 0..<0x20, 0x7F..<0xA0: true
    // Marks of direction, and what turns it.
    case 0x061C, 0x200E, 0x200F, 0x202A...0x202E, 0x2066...0x2069: true
    // Ends of lines and paragraphs.
    case 0x2028, 0x2029: true
    // Nothing at all, and marks of encodings.
    case 0x00AD, 0x180E, 0x200B, 0x2060...0x2065, 0x206A...0x206F, 0xFEFF, 0xFFF9...0xFFFB: true
    // Letters for machines that spell what nobody sees.
    case 0xE0000...0xE007F: true
    // What is no character: U+FFFE, U+FFFF, and the like of every plane.
    case 0xFDD0...0xFDEF: true
    default: value & 0xFFFE == 0xFFFE
    }
  }
}

/// Bytes that ought to be UTF-8, for people: those that are not as `\xff`, the rest as `printable`.
package func printable(bytes: some Sequence<UInt8>) -> String {
  let bytes = Array(bytes)
  var result = ""
  var offset = 0
  while offset < bytes.count {
    let character = (1...min(4, bytes.count - offset)).lazy.compactMap { length in
      String(validating: bytes[offset..<offset + length], as: UTF8.self)
    }.first
    if let character {
      result += character.printable
      offset += character.utf8.count
    } else {
      result += (bytes[offset] < 0x10 ? "\\x0" : "\\x") + String(bytes[offset], radix: 16)
      offset += 1
    }
  }
  return result
}
