internal import CMobula
internal import Glibc

/// A type as people write it, of what the compiler calls it: `app.Sum` for `3app3SumV`.
///
/// Names come from other processes: of what is none, the beginning is shown, escaped.
package func readableName(ofType mangled: String) -> String {
  // As it is in an executable's table of symbols, and as the runtime gives it.
  let symbol = mangled.utf8.starts(with: "$s".utf8) ? mangled : "$s" + mangled
  guard symbol.utf8.count < 10_000,
    let pointer = symbol.withCString({ swift_demangle($0, strlen($0), nil, nil, 0) })
  else { return quoted(mangled) }
  defer { free(pointer) }
  let text = String(cString: pointer)
  // What is no name comes back as it is.
  return text.isSame(as: symbol) ? quoted(mangled) : withoutPlaces(text).printable
}

private func quoted(_ text: String) -> String { "\"\(String(text.prefix(60)).printable)\"" }

/// A type of a file's or a function's own is `app.(unknown context at $7f01).Sum` or `app.(Sum in _0123ABC)`: the place
/// has no name to people.
private func withoutPlaces(_ text: String) -> String {
  var result = ""
  var rest = text[...]
  while let start = rest.range(of: "(unknown context at "), let end = rest[start.upperBound...].range(of: ").") {
    result += rest[..<start.lowerBound]
    rest = rest[end.upperBound...]
  }
  rest = (result + rest)[...]
  result = ""
  while let start = rest.range(of: " in _"), let open = rest[..<start.lowerBound].lastIndex(of: "("),
    let close = rest[start.upperBound...].firstIndex(of: ")")
  {
    result += rest[..<open] + rest[rest.index(after: open)..<start.lowerBound]
    rest = rest[rest.index(after: close)...]
  }
  return result + rest
}

extension Substring {
  fileprivate func range(of part: String) -> Range<Index>? {
    var index = startIndex
    while index < endIndex {
      if self[index...].hasPrefix(part) { return index..<self.index(index, offsetBy: part.count) }
      index = self.index(after: index)
    }
    return nil
  }
}
