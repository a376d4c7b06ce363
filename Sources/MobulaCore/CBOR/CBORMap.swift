internal import Glibc

/// A map that is being decoded: gone through as far as the keys asked for need it.
///
/// Nearly always the keys are asked for in the order they were written in, so the
/// entry after the last one found is tried first.
final class CBORMap {
  /// Where the key and the value begin. Kept small: a hostile map has many.
  private struct Entry {
    let key: Int
    let value: Int
  }

  let item: CBORItem
  private var entries: [Entry] = []
  /// Pairs not gone through; `nil` if the map ends with a break.
  private var remaining: Int?
  private var isComplete = false
  /// Where the last of `entries` ends, if that is known.
  private var lastEnd: Int?
  /// The entry that was found last.
  private var recent = -1
  /// Entries by key, up to `indexed`, once there are many.
  private var places: [Name: Int] = [:]
  private var indexed = 0

  init(_ item: CBORItem) throws {
    self.item = item
    var reader = item.reader(at: item.start)
    do throws(CBORProblem) {
      remaining = try reader.head(map: true)
    } catch {
      throw error.decodingError([String: Any].self, path: item.codingPath)
    }
    guard item.depth < CBORReader.maximumDepth else { throw item.corrupted(reader.tooDeep(at: item.start)) }
    lastEnd = reader.offset
    noteEnd()
  }

  /// The keys that are texts, in their order; up to the first error, which then ends the decoding.
  var keys: [String] {
    while (try? scan()) == true {}
    return entries.indices.compactMap { try? text(of: $0) }
  }

  func contains(_ key: String) -> Bool { (try? find(key)) ?? nil != nil }

  /// Where the value of `key` begins.
  func place(of key: any CodingKey) throws -> Int {
    guard let index = try find(key.stringValue) else {
      throw DecodingError.keyNotFound(
        key,
        DecodingError.Context(
          codingPath: item.codingPath, debugDescription: "The map has no key \"\(key.stringValue)\"."))
    }
    return entries[index].value
  }

  func isNil(_ key: any CodingKey) throws -> Bool { try item.isNil(at: place(of: key)) }

  func decode<T: Decodable>(_ type: T.Type, _ key: any CodingKey) throws -> T {
    var end: Int?
    let value = try item.decode(type, at: try place(of: key), key: key, end: &end)
    if let end, recent == entries.count - 1, lastEnd == nil {
      lastEnd = end
      noteEnd()
    }
    return value
  }

  func child(_ key: any CodingKey) throws -> CBORItem { item.item(at: try place(of: key), key: key) }

  private func find(_ key: String) throws -> Int? {
    if recent >= 0, try matches(recent, key) { return recent }
    let next = recent + 1
    if try next < entries.count || scan(), try matches(next, key) {
      recent = next
      return next
    }
    guard let index = try search(key) else { return nil }
    recent = index
    return index
  }

  private func search(_ key: String) throws -> Int? {
    if entries.count <= 16 {
      for index in entries.indices where try matches(index, key) { return index }
      while entries.count <= 16 {
        guard try scan() else { return nil }
        if try matches(entries.count - 1, key) { return entries.count - 1 }
      }
    }
    while true {
      while indexed < entries.count {
        if let text = try text(of: indexed).map({ Name($0) }), places[text] == nil { places[text] = indexed }
        indexed += 1
      }
      if let index = places[Name(key)] { return index }
      guard try scan() else { return nil }
    }
  }

  /// Goes to the next pair; false at the end of the map.
  private func scan() throws -> Bool {
    if lastEnd == nil, let last = entries.last {
      lastEnd = try item.end(of: last.value, depth: item.depth + 1)
      noteEnd()
    }
    guard !isComplete, let key = lastEnd else { return false }
    let value = try item.end(of: key, depth: item.depth + 1)
    entries.append(Entry(key: key, value: value))
    if let remaining { self.remaining = remaining - 1 }
    lastEnd = nil
    return true
  }

  /// At the end of the last pair, the end of the map is known as well.
  private func noteEnd() {
    guard let lastEnd else { return }
    if let remaining {
      guard remaining == 0 else { return }
      item.knownEnd = lastEnd
    } else {
      guard lastEnd < item.state.bytes.count, item.state.bytes[lastEnd] == 0xFF else { return }
      item.knownEnd = lastEnd + 1
    }
    isComplete = true
  }

  private func text(of index: Int) throws -> String? {
    var reader = item.reader(at: entries[index].key)
    do throws(MobulaError) {
      let token = try reader.untagged()
      return try reader.text(token)
    } catch {
      throw item.corrupted(error)
    }
  }

  private func matches(_ index: Int, _ key: String) throws -> Bool {
    var reader = item.reader(at: entries[index].key)
    if case .text(let bytes)? = try? reader.next() { return key.hasUTF8(bytes) }
    return try text(of: index)?.isSame(as: key) == true
  }
}

extension String {
  fileprivate func hasUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var text = self
    return text.withUTF8 { utf8 in
      guard utf8.count == bytes.count else { return false }
      guard let here = utf8.baseAddress, let there = bytes.baseAddress else { return true }
      return memcmp(here, there, bytes.count) == 0
    }
  }
}
