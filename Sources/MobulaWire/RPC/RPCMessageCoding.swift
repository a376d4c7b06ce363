internal import MobulaCore
internal import NIOCore

// The envelope: one byte of kind, eight of id where there is one, then the
// kind's own fields, all big-endian, then the CBOR body up to the frame's end.
//
//     request     1 id milliseconds:4 length:1 method body
//     openStream  2 id milliseconds:4 credit:4 length:1 method body
//     response    3 id body
//     error       4 id body
//     cancel      5 id
//     element     6 id body
//     end         7 id
//     credit      8 id count:4
//     ping        9
//     pong       10
//     goodbye    11 body
//     notice     12 length:1 method body

extension RPCMessage {
  /// Bytes of the frame's body.
  var size: Int {
    switch self {
    case .request(_, let method, _, let body): 14 + method.utf8.count + body.count
    case .notice(let method, let body): 2 + method.utf8.count + body.count
    case .openStream(_, let method, _, _, let body): 18 + method.utf8.count + body.count
    case .response(_, let body), .error(_, let body), .element(_, let body): 9 + body.count
    case .cancel, .end: 9
    case .credit: 13
    case .ping, .pong: 1
    case .goodbye(let body): 1 + body.count
    }
  }

  /// Appends the message as a frame.
  func encode(into buffer: inout ByteBuffer) {
    buffer.reserveCapacity(minimumWritableBytes: Frame.headerSize + size)
    buffer.writeInteger(UInt32(size))
    switch self {
    case .request(let id, let method, let milliseconds, let body):
      buffer.writeMultipleIntegers(UInt8(1), id, milliseconds, UInt8(method.utf8.count))
      buffer.writeString(method)
      buffer.writeBytes(body)
    case .openStream(let id, let method, let milliseconds, let credit, let body):
      buffer.writeMultipleIntegers(UInt8(2), id, milliseconds, credit, UInt8(method.utf8.count))
      buffer.writeString(method)
      buffer.writeBytes(body)
    case .response(let id, let body):
      buffer.writeMultipleIntegers(UInt8(3), id)
      buffer.writeBytes(body)
    case .error(let id, let body):
      buffer.writeMultipleIntegers(UInt8(4), id)
      buffer.writeBytes(body)
    case .cancel(let id): buffer.writeMultipleIntegers(UInt8(5), id)
    case .element(let id, let body):
      buffer.writeMultipleIntegers(UInt8(6), id)
      buffer.writeBytes(body)
    case .end(let id): buffer.writeMultipleIntegers(UInt8(7), id)
    case .credit(let id, let count): buffer.writeMultipleIntegers(UInt8(8), id, count)
    case .ping: buffer.writeInteger(UInt8(9))
    case .pong: buffer.writeInteger(UInt8(10))
    case .goodbye(let body):
      buffer.writeInteger(UInt8(11))
      buffer.writeBytes(body)
    case .notice(let method, let body):
      buffer.writeMultipleIntegers(UInt8(12), UInt8(method.utf8.count))
      buffer.writeString(method)
      buffer.writeBytes(body)
    }
  }

  /// Reads a frame's body; the message's own body is a view of it, not a copy.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) for anything but exactly one message.
  init(_ frame: [UInt8]) throws(MobulaError) {
    var reader = Reader(rest: frame[...])
    let kind: UInt8 = try reader.integer()
    switch kind {
    case 1:
      let (id, milliseconds): (UInt64, UInt32) = (try reader.integer(), try reader.integer())
      self = .request(id: id, method: try reader.method(), milliseconds: milliseconds, body: reader.rest)
    case 2:
      let (id, milliseconds): (UInt64, UInt32) = (try reader.integer(), try reader.integer())
      let credit: UInt32 = try reader.integer()
      self = .openStream(
        id: id, method: try reader.method(), milliseconds: milliseconds, credit: credit, body: reader.rest)
    case 3: self = .response(id: try reader.integer(), body: reader.rest)
    case 4: self = .error(id: try reader.integer(), body: reader.rest)
    case 5: self = .cancel(id: try reader.integer())
    case 6: self = .element(id: try reader.integer(), body: reader.rest)
    case 7: self = .end(id: try reader.integer())
    case 8: self = .credit(id: try reader.integer(), count: try reader.integer())
    case 9: self = .ping
    case 10: self = .pong
    case 11: self = .goodbye(reader.rest)
    case 12: self = .notice(method: try reader.method(), body: reader.rest)
    default: throw MobulaError(.protocolViolation, "A message of unknown kind \(kind) came.")
    }
    switch self {
    case .cancel, .end, .credit, .ping, .pong:
      guard reader.rest.isEmpty else {
        throw MobulaError(
          .protocolViolation, "A message of kind \(kind) came with \(reader.rest.count) bytes too many.")
      }
    default: break
    }
  }

  private struct Reader {
    var rest: ArraySlice<UInt8>

    mutating func integer<Integer: FixedWidthInteger>() throws(MobulaError) -> Integer {
      let size = Integer.bitWidth / 8
      guard rest.count >= size else { throw MobulaError(.protocolViolation, "A message came cut short.") }
      defer { rest = rest.dropFirst(size) }
      return rest.prefix(size).reduce(0) { $0 &<< 8 | Integer(truncatingIfNeeded: $1) }
    }

    mutating func method() throws(MobulaError) -> String {
      let count = Int(try integer() as UInt8)
      guard rest.count >= count, let name = String(validating: rest.prefix(count), as: UTF8.self), !name.isEmpty else {
        throw MobulaError(.protocolViolation, "A request came whose method's name can't be read.")
      }
      rest = rest.dropFirst(count)
      return name
    }
  }
}
