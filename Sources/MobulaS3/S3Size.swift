/// Sizes as S3 names them, checked where they are read: nothing behind it has to expect one that can't be.
package enum S3Size {
  /// The most bytes of an object: 128 TiB, the most that a cluster's object can have in chunks of 8 MiB.
  /// AWS allows 50 TB.
  package static let maximum = 1 << 47

  /// `nil` for what is no number from 0 to `maximum`.
  package static func parse(_ text: String) -> Int? {
    // Digits alone: `Int` takes signs, too.
    guard !text.isEmpty, text.utf8.allSatisfy({ 0x30...0x39 ~= $0 }), let size = Int(text) else { return nil }
    return size <= maximum ? size : nil
  }

  /// What is said of a size that `parse` refuses.
  static func refusal(_ text: String, of what: String) -> String {
    "\(what) names a size of \(text.prefix(40)) bytes, and objects have 0 to \(maximum)"
  }
}
