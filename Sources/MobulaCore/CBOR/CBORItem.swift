/// The decoder of one item, and its container for a single value.
///
/// Knows where the item ends once somebody has read it to its end; only an item
/// that was not is gone through once more, to find what follows it. So whatever
/// decodes, every byte has been checked in the end.
final class CBORItem: Decoder, SingleValueDecodingContainer {
  let state: CBORDecodingState
  let parent: CBORItem?
  let key: (any CodingKey)?
  /// Where the item begins, in bytes.
  let start: Int
  /// How many arrays and maps it lies in.
  let depth: Int
  /// Where it ends, if that is known.
  var knownEnd: Int?

  init(state: CBORDecodingState, parent: CBORItem?, key: (any CodingKey)?, start: Int, depth: Int) {
    self.state = state
    self.parent = parent
    self.key = key
    self.start = start
    self.depth = depth
  }

  /// An item inside this one.
  func item(at start: Int, key: any CodingKey) -> CBORItem {
    CBORItem(state: state, parent: self, key: key, start: start, depth: depth + 1)
  }

  var userInfo: [CodingUserInfoKey: Any] { state.userInfo }

  var codingPath: [any CodingKey] {
    var path: [any CodingKey] = []
    var item: CBORItem? = self
    while let current = item {
      if let key = current.key { path.append(key) }
      item = current.parent
    }
    return path.reversed()
  }

  func path(_ key: (any CodingKey)?) -> [any CodingKey] {
    if let key { codingPath + [key] } else { codingPath }
  }

  func reader(at offset: Int) -> CBORReader { CBORReader(state.bytes, at: offset) }

  /// Where the item ends.
  func end() throws -> Int {
    if let knownEnd { return knownEnd }
    return try end(of: start, depth: depth)
  }

  /// Where the item at `offset` ends.
  func end(of offset: Int, depth: Int) throws -> Int {
    var reader = reader(at: offset)
    do throws(MobulaError) { try reader.skip(depth: depth) } catch { throw corrupted(error) }
    return reader.offset
  }

  func corrupted(_ error: MobulaError, key: (any CodingKey)? = nil) -> DecodingError {
    .dataCorrupted(
      DecodingError.Context(codingPath: path(key), debugDescription: error.message, underlyingError: error))
  }

  /// Decodes what begins at `offset`: this item, or with a key one inside it.
  ///
  /// - Parameter end: becomes where the value ends, if that is known.
  @inline(__always)
  func decode<T: Decodable>(_ type: T.Type, at offset: Int, key: (any CodingKey)?, end: inout Int?) throws -> T {
    if CBORReader.isScalar(type) {
      var reader = reader(at: offset)
      do throws(CBORProblem) {
        let value = try reader.scalar(type)
        end = reader.offset
        return value
      } catch {
        throw error.decodingError(type, path: path(key))
      }
    }
    if let number = CBORTypedArray.element(of: type), isRun(at: offset, of: number) {
      let (value, after) = try run(type, of: number, at: offset, key: key)
      end = after
      return value
    }
    let item = if let key { item(at: offset, key: key) } else { self }
    let value = try T(from: item)
    end = item.knownEnd
    return value
  }

  func decode<T: Decodable>(_ type: T.Type) throws -> T {
    var end: Int?
    let value = try decode(type, at: start, key: nil, end: &end)
    if let end { knownEnd = end }
    return value
  }

  /// Decodes 16 bytes, the most significant first, for a value of `type`.
  func words(_ type: Any.Type) throws -> (high: UInt64, low: UInt64) {
    var reader = reader(at: start)
    do throws(CBORProblem) {
      let words = try reader.words()
      knownEnd = reader.offset
      return words
    } catch {
      throw error.decodingError(type, path: codingPath)
    }
  }

  /// Whether the item at `offset` is null or undefined.
  func isNil(at offset: Int) throws -> Bool {
    var reader = reader(at: offset)
    do throws(MobulaError) {
      if case .simple(let number) = try reader.untagged() { return number == 22 || number == 23 }
      return false
    } catch {
      throw corrupted(error)
    }
  }

  // A broken item is not nil: decoding it as something else then says what is wrong.
  func decodeNil() -> Bool { (try? isNil(at: start)) ?? false }

  func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
    KeyedDecodingContainer(CBORKeyedDecoding<Key>(map: try CBORMap(self)))
  }

  func unkeyedContainer() throws -> any UnkeyedDecodingContainer { try CBORUnkeyedDecoding(self) }

  func singleValueContainer() throws -> any SingleValueDecodingContainer { self }
}
