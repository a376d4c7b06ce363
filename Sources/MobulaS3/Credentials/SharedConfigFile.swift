internal import MobulaCore

/// One of AWS's shared files, `config` or `credentials`, as text says it: a pure parser.
///
/// Source: "Shared config and credentials files", AWS SDKs and Tools Reference Guide, and the behaviour that the
/// SDKs share: names of settings don't depend on case, a comment after a value needs a space before it, a line that is
/// indented further than the setting before it continues that setting's value or, where that is empty, is a nested
/// setting; sections and settings whose names are impossible are left out.
struct SharedConfigFile: Sendable, Equatable {
  enum Kind: Sendable { case config, credentials }

  struct Section: Sendable, Equatable {
    var values: [String: String] = [:]
    /// Settings of settings: `s3 =` and indented lines after it.
    var nested: [String: [String: String]] = [:]

    /// The setting's value; `nil` where it is missing or empty.
    subscript(_ name: String) -> String? { values[name].flatMap { $0.isEmpty ? nil : $0 } }

    mutating func merge(_ other: Section) {
      values.merge(other.values) { $1 }
      nested.merge(other.nested) { $0.merging($1) { $1 } }
    }
  }

  var profiles: [String: Section] = [:]
  /// `[services NAME]`: what several profiles say of endpoints.
  var services: [String: Section] = [:]

  init() {}

  /// - Parameter path: for errors, which name a line and never its content, as that may be a secret.
  /// - Throws: `MobulaError` (`invalidArgument`) for lines that are no settings.
  init(parsing text: String, kind: Kind, path: String) throws(MobulaError) {
    var parser = Parser(kind: kind, path: path)
    let text = text.hasPrefix("\u{FEFF}") ? text.dropFirst() : text[...]
    // To Swift, CR and LF together are one character.
    for line in text.split(omittingEmptySubsequences: false, whereSeparator: { "\n\r\r\n".contains($0) }) {
      try parser.take(line)
    }
    self = parser.finished()
  }
}

private struct Parser {
  private enum Section: Hashable {
    /// `explicitly`: as `[profile default]`, which hides `[default]`.
    case profile(String, explicitly: Bool)
    case services(String)
    /// Of another kind, or with a name that can't be.
    case other
  }

  let kind: SharedConfigFile.Kind
  let path: String
  private var sections: [Section: SharedConfigFile.Section] = [:]
  private var section: Section?
  /// The last setting, for lines that continue it; with `nil` for its name where that can't be.
  private var setting: (name: String?, isNested: Bool, indent: Int)?
  private var line = 0

  init(kind: SharedConfigFile.Kind, path: String) {
    self.kind = kind
    self.path = path
  }

  mutating func take(_ text: Substring) throws(MobulaError) {
    line += 1
    let trimmed = Self.trimmed(text)
    guard let first = trimmed.first, first != "#", first != ";" else { return }
    let indent = text.prefix { $0 == " " || $0 == "\t" }.count
    let continues = setting.map { indent > $0.indent } ?? false
    if first == "[", !continues {
      section = try name(of: trimmed)
      sections[section!, default: .init()].merge(.init())
      setting = nil
    } else if let section {
      if continues {
        try continueSetting(trimmed, in: section)
      } else {
        try take(setting: Self.withoutComment(text), indent, in: section)
      }
    } else {
      throw malformed("is before the first [section]")
    }
  }

  private mutating func take(setting text: Substring, _ indent: Int, in section: Section) throws(MobulaError) {
    let (name, value) = try pair(text)
    let isName = name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_./%@:+".contains($0)) }
    setting = (isName ? name.lowercased() : nil, value.isEmpty, indent)
    guard let name = setting?.name else { return }
    sections[section]?.values[name] = value
    sections[section]?.nested[name] = value.isEmpty ? [:] : nil
  }

  private mutating func continueSetting(_ text: Substring, in section: Section) throws(MobulaError) {
    guard let setting else { return }
    guard setting.isNested else {
      if let name = setting.name { sections[section]?.values[name]? += "\n" + text }
      return
    }
    let (name, value) = try pair(Self.withoutComment(text))
    if let outer = setting.name { sections[section]?.nested[outer]?[name.lowercased()] = String(value) }
  }

  private func pair(_ text: Substring) throws(MobulaError) -> (name: String, value: String) {
    guard let equals = text.firstIndex(of: "=") else { throw malformed("has no =") }
    let name = Self.trimmed(text[..<equals])
    guard !name.isEmpty else { throw malformed("has no name before its =") }
    return (String(name), String(Self.trimmed(text[text.index(after: equals)...])))
  }

  /// `[default]`, `[profile NAME]`, `[services NAME]`; in `credentials`, `[NAME]`.
  private func name(of text: Substring) throws(MobulaError) -> Section {
    guard let end = text.firstIndex(of: "]") else { throw malformed("begins a [section] without its ]") }
    let inside = Self.trimmed(text[text.index(after: text.startIndex)..<end])
    // In `credentials` all of it is the name, as it is.
    let words = kind == .credentials ? [Self.unquoted(inside)] : Self.words(of: inside)
    guard let last = words.last, !last.isEmpty,
      !last.unicodeScalars.contains(where: { $0.properties.generalCategory == .control })
    else { return .other }
    if kind == .credentials, last.hasPrefix("profile ") { return .other }
    switch (kind, words.count, words[0]) {
    case (.credentials, 1, _): return .profile(last, explicitly: false)
    case (.config, 1, "default"): return .profile("default", explicitly: false)
    case (.config, 2, "profile"): return .profile(last, explicitly: true)
    case (.config, 2, "services"): return .services(last)
    default: return .other
    }
  }

  /// Words, each perhaps in quotes, as the AWS command line reads them.
  private static func words(of text: Substring) -> [String] {
    var words: [String] = []
    var word: String?
    var quote: Character?
    for character in text {
      if let open = quote {
        if character == open { quote = nil } else { word! += String(character) }
      } else if character == "\"" || character == "'" {
        quote = character
        word = word ?? ""
      } else if character == " " || character == "\t" {
        if let done = word { words.append(done) }
        word = nil
      } else {
        word = (word ?? "") + String(character)
      }
    }
    if let word { words.append(word) }
    return words
  }

  private static func unquoted(_ text: Substring) -> String {
    guard text.count > 1, let first = text.first, first == text.last, first == "\"" || first == "'" else {
      return String(text)
    }
    return String(text.dropFirst().dropLast())
  }

  func finished() -> SharedConfigFile {
    var result = SharedConfigFile()
    for (section, content) in sections {
      switch section {
      case .profile("default", explicitly: false) where sections[.profile("default", explicitly: true)] != nil: break
      case .profile(let name, _): result.profiles[name] = content
      case .services(let name): result.services[name] = content
      case .other: break
      }
    }
    return result
  }

  private static func trimmed(_ text: Substring) -> Substring {
    var text = text
    while let last = text.last, last == " " || last == "\t" { text.removeLast() }
    return text.drop { $0 == " " || $0 == "\t" }
  }

  /// Up to the first `#` or `;` that follows a space: without one it belongs to the value.
  private static func withoutComment(_ text: Substring) -> Substring {
    var previous: Character = "="
    for index in text.indices {
      if "#;".contains(text[index]), previous == " " || previous == "\t" { return text[..<index] }
      previous = text[index]
    }
    return text
  }

  private func malformed(_ what: String) -> MobulaError {
    MobulaError(.invalidArgument, "Line \(line) of \(path) \(what): correct the file.")
  }
}
