internal import CMobula
internal import Glibc

/// A type as people write it, of what the compiler calls it: `app.Sum` for `3app3SumV`.
///
/// Names come from other processes: of what is none, the beginning is shown, escaped.
public func readableName(ofType mangled: String) -> String {
  // As it is in an executable's table of symbols, and as the runtime gives it.
  let symbol = mangled.utf8.starts(with: "$s".utf8) ? mangled : "$s" + mangled
  guard symbol.utf8.count < 10_000,
    let pointer = symbol.withCString({ swift_demangle($0, strlen($0), nil, nil, 0) })
  else { return "\"\(String(mangled.prefix(60)).printable)\"" }
  defer { free(pointer) }
  return withoutDiscriminators(String(cString: pointer)).printable
}

/// `app.(Sum in _0123ABC)` is a type of a file's own: its file has no name to people.
private func withoutDiscriminators(_ text: String) -> String {
  var result = ""
  var rest = text[...]
  while let start = rest.range(of: " in _") {
    let before = rest[..<start.lowerBound]
    guard let open = before.lastIndex(of: "("), let close = rest[start.upperBound...].firstIndex(of: ")") else { break }
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
