/// A model's tokens by number, from whichever files it came with.
struct Vocabulary {
  /// "" where there is none.
  private(set) var tokens: [String]
  /// Sentences about tokens that the model has no place for.
  private(set) var warnings: [String] = []
  private let size: Int

  /// - Throws: `badModel`, if no file has one, or one has a token past the model's vocabulary.
  init(
    _ files: ModelFiles, size: Int, family: SpeechConfiguration.Family, fromCTranslate2: Bool
  ) throws(SpeechError) {
    guard 1...1 << 22 ~= size else {
      throw SpeechError(.badModel, "A vocabulary of \(size) tokens is none that a model can have: correct config.json.")
    }
    self.size = size
    tokens = Array(repeating: "", count: size)
    var isThere = false
    if fromCTranslate2 {
      if let json = try files.json("vocabulary.json") {
        try add(list: json, "vocabulary.json")
        isThere = true
      } else if let file = files["vocabulary.txt"] {
        try add(lines: file)
        isThere = true
      }
    }
    if family == .whisper, let json = try files.json("tokenizer.json") {
      guard let model = json["model"]?["vocab"] else {
        throw SpeechError(.badModel, "tokenizer.json has no vocabulary of the kind that Whisper's has: fetch it again.")
      }
      try add(object: model, "tokenizer.json")
      let tokens = (json["added_tokens"]?.array ?? []).compactMap { token in
        token["content"]?.string.map { ($0, token["id"]) }
      }
      try add(later: tokens, "tokenizer.json")
      isThere = true
    } else if !isThere, let json = try files.json("vocab.json") {
      try add(object: json, "vocab.json")
      if let added = try files.json("added_tokens.json") {
        try add(later: Self.entries(of: added, "added_tokens.json").map { ($0.key, $0.value) }, "added_tokens.json")
      }
      isThere = true
    }
    guard isThere else {
      let wanted =
        fromCTranslate2 ? "vocabulary.json or vocabulary.txt" : family == .whisper ? "tokenizer.json" : "vocab.json"
      throw SpeechError(.badModel, "The model's vocabulary is missing beside its weights: add \(wanted).")
    }
  }

  /// The tokens of the form `<|name|>`.
  var special: [String: Int] {
    var special: [String: Int] = [:]
    for (number, token) in tokens.enumerated() where token.hasPrefix("<|") && token.hasSuffix("|>") {
      if special[token] == nil { special[token] = number }
    }
    return special
  }

  /// Fills a hole; a token that is there already stays.
  private mutating func add(_ token: String, _ number: JSONValue?, _ name: String) throws(SpeechError) {
    guard let number = number?.integer, 0..<size ~= number else {
      throw SpeechError(
        .badModel, "\(name) numbers the token \"\(token)\" outside the model's \(size): it belongs to another model.")
    }
    if tokens[number].isEmpty { tokens[number] = token }
  }

  /// Tokens that somebody added to the tokenizer. Where the embeddings were not made larger for them, the model can't
  /// say them, and is the same without them.
  private mutating func add(later tokens: [(String, JSONValue?)], _ name: String) throws(SpeechError) {
    var beyond: [String] = []
    for (token, number) in tokens {
      if let number = number?.integer, number >= size { beyond.append(token) } else { try add(token, number, name) }
    }
    guard !beyond.isEmpty else { return }
    let some = beyond.sorted().prefix(3).map { "\"\($0)\"" }.joined(separator: ", ")
    let more = beyond.count > 3 ? " and \(beyond.count - 3) more" : ""
    warnings.append(
      "\(name) adds tokens beyond the model's \(size), which it can't say: \(some)\(more) are left out.")
  }

  private mutating func add(object: JSONValue, _ name: String) throws(SpeechError) {
    for (token, number) in try Self.entries(of: object, name) { try add(token, number, name) }
  }

  private static func entries(of object: JSONValue, _ name: String) throws(SpeechError) -> [(
    key: String, value: JSONValue
  )] {
    guard let entries = object.object else {
      throw SpeechError(.badModel, "\(name) has no vocabulary from tokens to numbers: fetch it again.")
    }
    return entries
  }

  private mutating func add(list: JSONValue, _ name: String) throws(SpeechError) {
    guard let list = list.array, list.count <= size else {
      throw SpeechError(.badModel, "\(name) is no list of at most \(size) tokens: it belongs to another model.")
    }
    for (number, token) in list.enumerated() { tokens[number] = token.string ?? "" }
  }

  /// One token a line. Lines are told by their bytes, as some of Unicode's other line ends are tokens' parts.
  private mutating func add(lines file: ModelFile) throws(SpeechError) {
    var (start, number) = (0, 0)
    while start < file.bytes.count {
      let end = file.bytes[start...].firstIndex(of: 0x0A) ?? file.bytes.count
      guard number < size, let token = text(UnsafeRawBufferPointer(rebasing: file.bytes[start..<end])) else {
        throw SpeechError(
          .badModel, "\(file.name) is no UTF-8 text of at most \(size) lines: it belongs to another model.")
      }
      tokens[number] = token
      (start, number) = (end + 1, number + 1)
    }
  }
}
