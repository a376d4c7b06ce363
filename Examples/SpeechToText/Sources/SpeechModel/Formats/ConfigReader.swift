/// Reads fields of one or more JSON configurations, of which the first that has a field counts.
struct ConfigReader {
  let name: String
  private let values: [JSONValue]

  /// - Throws: `badModel`, if one is no object.
  init(_ values: [JSONValue?], name: String) throws(SpeechError) {
    self.name = name
    self.values = values.compactMap { $0 }
    for value in self.values where value.object == nil {
      throw SpeechError(.badModel, "\(name) is no JSON object: fetch it again.")
    }
  }

  /// A field that isn't null, or `nil`.
  subscript(key: String) -> JSONValue? {
    for value in values {
      if let field = value[key], !field.isNull { return field }
    }
    return nil
  }

  private func fail(_ key: String, _ wanted: String) -> SpeechError {
    SpeechError(.badModel, "\(name) has no \(wanted) as \(key): correct it.")
  }

  func integer(_ key: String) throws(SpeechError) -> Int {
    guard let value = self[key]?.integer else { throw fail(key, "whole number") }
    return value
  }

  func integer(_ key: String, default value: Int) throws(SpeechError) -> Int {
    self[key] == nil ? value : try integer(key)
  }

  func double(_ key: String, default value: Double) throws(SpeechError) -> Double {
    guard let field = self[key] else { return value }
    guard let value = field.double else { throw fail(key, "number") }
    return value
  }

  func bool(_ key: String, default value: Bool) throws(SpeechError) -> Bool {
    guard let field = self[key] else { return value }
    guard let value = field.bool else { throw fail(key, "true or false") }
    return value
  }

  func string(_ key: String, default value: String) throws(SpeechError) -> String {
    guard let field = self[key] else { return value }
    guard let value = field.string else { throw fail(key, "text") }
    return value
  }

  /// None where there is no such field.
  func integers(_ key: String) throws(SpeechError) -> [Int] {
    guard let field = self[key] else { return [] }
    guard let array = field.array else { throw fail(key, "list") }
    var integers: [Int] = []
    for value in array {
      guard let integer = value.integer else { throw fail(key, "list of whole numbers") }
      integers.append(integer)
    }
    return integers
  }
}
