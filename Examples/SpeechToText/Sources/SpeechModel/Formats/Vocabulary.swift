/// A model's tokens by number, from whichever files it came with.
struct Vocabulary {
  /// "" where there is none.
  private(set) var tokens: [String]
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
      for token in json["added_tokens"]?.array ?? [] {
        guard let text = token["content"]?.string else { continue }
        try add(text, token["id"], "tokenizer.json")
      }
      isThere = true
    } else if !isThere, let json = try files.json("vocab.json") {
      try add(object: json, "vocab.json")
      if let added = try files.json("added_tokens.json") { try add(object: added, "added_tokens.json") }
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

  private mutating func add(object: JSONValue, _ name: String) throws(SpeechError) {
    guard let entries = object.object else {
      throw SpeechError(.badModel, "\(name) has no vocabulary from tokens to numbers: fetch it again.")
    }
    for (token, number) in entries { try add(token, number, name) }
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
