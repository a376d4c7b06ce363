/// How far texts are from what was said: substituted, inserted and missing words over the words of the reference
/// (Levenshtein's distance of words).
struct WordErrorRate {
  private(set) var errors = 0
  private(set) var words = 0

  var rate: Double { words == 0 ? 0 : Double(errors) / Double(words) }

  init() {}

  init(_ text: String, reference: String) { add(text, reference: reference) }

  mutating func add(_ text: String, reference: String) {
    let (said, heard) = (Self.words(reference), Self.words(text))
    words += said.count
    errors += Self.distance(said, heard)
  }

  /// Titles as they are spoken, as in the normaliser that Whisper's authors count with.
  private static let titles = ["mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint"]

  /// Lower case, without punctuation, titles in full; "ill-disposed" is two words, "don't" one.
  static func words(_ text: String) -> [String] {
    let words = text.lowercased().split { !($0.isLetter || $0.isNumber || $0 == "'" || $0 == "’") }.map {
      String($0.filter { $0 != "'" && $0 != "’" })
    }
    return words.filter { !$0.isEmpty }.map { titles[$0] ?? $0 }
  }

  private static func distance(_ a: [String], _ b: [String]) -> Int {
    var row = Array(0...b.count)
    for (i, word) in a.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, other) in b.enumerated() {
        let substituted = diagonal + (word == other ? 0 : 1)
        diagonal = row[j + 1]
        row[j + 1] = min(substituted, row[j] + 1, row[j + 1] + 1)
      }
    }
    return row[b.count]
  }
}
