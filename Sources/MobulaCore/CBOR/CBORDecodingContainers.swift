struct CBORKeyedDecoding<Key: CodingKey>: KeyedDecodingContainerProtocol {
  let map: CBORMap

  var codingPath: [any CodingKey] { map.item.codingPath }
  var allKeys: [Key] { map.keys.compactMap { Key(stringValue: $0) } }

  func contains(_ key: Key) -> Bool { map.contains(key.stringValue) }

  func decodeNil(forKey key: Key) throws -> Bool { try map.isNil(key) }

  func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T { try map.decode(type, key) }

  func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) throws -> KeyedDecodingContainer<Nested> {
    try map.child(key).container(keyedBy: type)
  }

  func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
    try map.child(key).unkeyedContainer()
  }

  func superDecoder() throws -> any Decoder { try map.child(CBORKey.superclass) }

  func superDecoder(forKey key: Key) throws -> any Decoder { try map.child(key) }
}

struct CBORUnkeyedDecoding: UnkeyedDecodingContainer {
  private let item: CBORItem
  /// Elements in all; `nil` if the array ends with a break.
  let count: Int?
  private(set) var currentIndex = 0
  /// Where the next element begins.
  private var offset: Int

  init(_ item: CBORItem) throws {
    self.item = item
    var reader = item.reader(at: item.start)
    do throws(CBORProblem) {
      count = try reader.head(map: false)
    } catch {
      throw error.decodingError([Any].self, path: item.codingPath)
    }
    guard item.depth < CBORReader.maximumDepth else { throw item.corrupted(reader.tooDeep(at: item.start)) }
    offset = reader.offset
    noteEnd()
  }

  var codingPath: [any CodingKey] { item.codingPath }

  var isAtEnd: Bool {
    if let count { return currentIndex >= count }
    return offset < item.state.bytes.count && item.state.bytes[offset] == 0xFF
  }

  private func noteEnd() {
    if isAtEnd { item.knownEnd = count == nil ? offset + 1 : offset }
  }

  /// Where the next element begins, and its key for messages.
  private func next(_ type: Any.Type) throws -> (offset: Int, key: CBORKey) {
    let key = CBORKey.index(currentIndex)
    guard !isAtEnd else {
      throw DecodingError.valueNotFound(
        type,
        DecodingError.Context(
          codingPath: codingPath + [key], debugDescription: "The array has only \(currentIndex) elements."))
    }
    return (offset, key)
  }

  private mutating func advance(to end: Int?) throws {
    offset = try end ?? item.end(of: offset, depth: item.depth + 1)
    currentIndex += 1
    noteEnd()
  }

  mutating func decodeNil() throws -> Bool {
    guard try item.isNil(at: next(Never?.self).offset) else { return false }
    try advance(to: nil)
    return true
  }

  mutating func decode<T: Decodable>(_ type: T.Type) throws -> T {
    let (offset, key) = try next(type)
    var end: Int?
    let value = try item.decode(type, at: offset, key: key, end: &end)
    try advance(to: end)
    return value
  }

  /// Goes past the next element, which gets a decoder of its own.
  private mutating func child(_ type: Any.Type) throws -> CBORItem {
    let (offset, key) = try next(type)
    let child = item.item(at: offset, key: key)
    try advance(to: nil)
    return child
  }

  mutating func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type
  ) throws -> KeyedDecodingContainer<Nested> {
    try child([String: Any].self).container(keyedBy: type)
  }

  mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
    try child([Any].self).unkeyedContainer()
  }

  mutating func superDecoder() throws -> any Decoder { try child((any Decoder).self) }
}
