/// The words of a text, in lower case and without punctuation.
func words(_ text: String) -> [String] {
  text.lowercased().split { !($0.isLetter || $0 == "'") }.map(String.init)
}

/// How many words have to be replaced, inserted or left out to make one text of the other: Levenshtein's distance.
func wordErrors(_ text: String, _ reference: String) -> Int {
  let (a, b) = (words(text), words(reference))
  var row = Array(0...b.count)
  for (index, word) in a.enumerated() {
    var next = [index + 1]
    for (column, other) in b.enumerated() {
      next.append(min(row[column] + (word == other ? 0 : 1), row[column + 1] + 1, next[column] + 1))
    }
    row = next
  }
  return row[b.count]
}
