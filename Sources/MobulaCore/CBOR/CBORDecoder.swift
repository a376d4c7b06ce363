/// Decodes `Codable` values from CBOR (RFC 8949), whoever wrote it.
///
/// Accepts definite and indefinite lengths, and numbers of any width that hold the
/// value exactly. Tags, and what else is in a map than the keys asked for, are
/// passed over; of equal keys the first counts.
package struct CBORDecoder: Sendable {
  /// What values find in `decoder.userInfo`; empty unless set.
  package var userInfo: [CodingUserInfoKey: any Sendable] = [:]
  /// What the encoder's sink took; not needed for values encoded without one.
  package var buffers: (any CBORBufferSource)?

  /// A decoder with nothing in its `userInfo`.
  package init() {}

  /// - Throws: `DecodingError` for bytes that are not one whole CBOR item, or not one of a `T`,
  ///   or what an `init(from:)` throws.
  package func decode<T: Decodable>(_ type: T.Type, from bytes: UnsafeRawBufferPointer) throws -> T {
    if CBORReader.isScalar(type) {
      var reader = CBORReader(bytes)
      do throws(CBORProblem) {
        let value = try reader.scalar(type)
        do throws(MobulaError) { try reader.finish() } catch { throw .malformed(error) }
        return value
      } catch {
        throw error.decodingError(type, path: [])
      }
    }
    let state = CBORDecodingState(bytes: bytes, userInfo: userInfo, buffers: buffers)
    // A decoder that someone kept finds no bytes, rather than those of freed memory.
    defer { state.bytes = UnsafeRawBufferPointer(start: nil, count: 0) }
    let root = CBORItem(state: state, parent: nil, key: nil, start: 0, depth: 0)
    let value = try root.decode(type)
    let end = try root.end()
    do throws(MobulaError) { try CBORReader(bytes, at: end).finish() } catch { throw root.corrupted(error) }
    return value
  }

  /// - Throws: as for memory.
  package func decode<T: Decodable>(_ type: T.Type, from bytes: some Collection<UInt8>) throws -> T {
    let value = try bytes.withContiguousStorageIfAvailable {
      try decode(type, from: UnsafeRawBufferPointer($0))
    }
    return try value ?? Array(bytes).withUnsafeBytes { try decode(type, from: $0) }
  }
}

/// The bytes that one call of `decode` reads.
final class CBORDecodingState {
  // Changed once, at the end: nothing reads it at the same time.
  @exclusivity(unchecked) var bytes: UnsafeRawBufferPointer
  /// Made when somebody asks for it: most values don't.
  private(set) lazy var userInfo: [CodingUserInfoKey: Any] = sendableUserInfo
  private let sendableUserInfo: [CodingUserInfoKey: any Sendable]
  let buffers: (any CBORBufferSource)?

  init(
    bytes: UnsafeRawBufferPointer, userInfo: [CodingUserInfoKey: any Sendable], buffers: (any CBORBufferSource)?
  ) {
    self.bytes = bytes
    sendableUserInfo = userInfo
    self.buffers = buffers
  }
}
