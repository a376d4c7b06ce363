/// The encoder that a value gets, and its container for a single value.
struct CBORFrameEncoder: Encoder, SingleValueEncodingContainer {
  let state: CBOREncodingState
  let id: CBOREncodingState.FrameID

  var codingPath: [any CodingKey] { state.codingPath(id.index) }
  var userInfo: [CodingUserInfoKey: Any] { state.userInfo }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    state.decide(.map, id: id)
    state.note(keys: ObjectIdentifier(Key.self), id: id)
    return KeyedEncodingContainer(CBORKeyedEncoding<Key>(state: state, id: id))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    state.decide(.array, id: id)
    return CBORUnkeyedEncoding(state: state, id: id)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer { self }

  func encodeNil() throws { try state.single(id) { state.writer.null() } }

  /// Encodes 16 bytes, the most significant first.
  func encode(words: (high: UInt64, low: UInt64)) throws {
    try state.single(id) { state.writer.byteString(words: words) }
  }

  func encode<T: Encodable>(_ value: T) throws {
    try state.single(id) { try state.write(value, key: nil, parent: id.index) }
  }
}

struct CBORKeyedEncoding<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let state: CBOREncodingState
  let id: CBOREncodingState.FrameID

  var codingPath: [any CodingKey] { state.codingPath(id.index) }

  func encodeNil(forKey key: Key) throws { try state.element(key, in: id) { state.writer.null() } }

  func encode<T: Encodable>(_ value: T, forKey key: Key) throws {
    try state.element(key, in: id) { try state.write(value, key: key, parent: id.index) }
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) -> KeyedEncodingContainer<Nested> {
    let nested = state.nest(.map, key: key, pathKey: key, in: id)
    return KeyedEncodingContainer(CBORKeyedEncoding<Nested>(state: state, id: nested))
  }

  func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
    CBORUnkeyedEncoding(state: state, id: state.nest(.array, key: key, pathKey: key, in: id))
  }

  func superEncoder() -> any Encoder { superEncoder(for: CBORKey.superclass) }

  func superEncoder(forKey key: Key) -> any Encoder { superEncoder(for: key) }

  private func superEncoder(for key: any CodingKey) -> any Encoder {
    CBORFrameEncoder(state: state, id: state.nest(.undecided, key: key, pathKey: key, in: id))
  }
}

struct CBORUnkeyedEncoding: UnkeyedEncodingContainer {
  let state: CBOREncodingState
  let id: CBOREncodingState.FrameID

  var codingPath: [any CodingKey] { state.codingPath(id.index) }
  var count: Int { state.isUsable(id) ? state.frames[id.index].count : 0 }

  func encodeNil() throws { try state.element(nil, in: id) { state.writer.null() } }

  func encode<T: Encodable>(_ value: T) throws {
    try state.element(nil, in: id) { try state.write(value, key: CBORKey.index(count), parent: id.index) }
  }

  func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
    KeyedEncodingContainer(CBORKeyedEncoding<Nested>(state: state, id: nest(.map)))
  }

  func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer {
    CBORUnkeyedEncoding(state: state, id: nest(.array))
  }

  func superEncoder() -> any Encoder { CBORFrameEncoder(state: state, id: nest(.undecided)) }

  private func nest(_ kind: CBOREncodingState.Kind) -> CBOREncodingState.FrameID {
    state.nest(kind, key: nil, pathKey: CBORKey.index(count), in: id)
  }
}
