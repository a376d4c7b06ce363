internal import Foundation
internal import GRDB
internal import MobulaCore

/// A row, read column by column once its checksum was found right.
struct SQLiteRow {
  let table: String
  private let values: [DatabaseValue]
  private var next = 0

  /// - Parameter count: columns without the checksum, which is the last.
  init(_ table: String, _ row: Row, count: Int) throws {
    self.table = table
    values = (0..<count).map { row[$0] }
    guard Int64.fromDatabaseValue(row[count]) == Int64(Self.checksum(table, values)) else { throw damage }
  }

  var damage: MobulaError { MobulaError(.corrupted, "a row of table \(table) has other bytes than were written") }

  /// The CRC32C of the table's name and of each value's kind, length and bytes.
  static func checksum(_ table: String, _ values: [DatabaseValue]) -> UInt32 {
    var bytes = Array(table.utf8)
    func add(_ kind: UInt8, _ value: some Collection<UInt8>) {
      bytes.append(kind)
      withUnsafeBytes(of: UInt32(value.count).littleEndian) { bytes += $0 }
      bytes += value
    }
    for value in values {
      switch value.storage {
      case .null: add(0, [])
      case .int64(let number): withUnsafeBytes(of: number.littleEndian) { add(1, $0) }
      case .double(let number): withUnsafeBytes(of: number.bitPattern.littleEndian) { add(2, $0) }
      case .string(let text): add(3, text.utf8)
      case .blob(let data): add(4, data)
      }
    }
    return bytes.withUnsafeBytes { crc32c($0) }
  }

  private mutating func value() -> DatabaseValue {
    defer { next += 1 }
    return values[next]
  }

  mutating func text() throws -> String {
    guard case .string(let text) = value().storage else { throw damage }
    return text
  }

  mutating func integer() throws -> UInt64 {
    guard case .int64(let number) = value().storage else { throw damage }
    return UInt64(bitPattern: number)
  }

  mutating func bytesOrNull() throws -> [UInt8]? {
    switch value().storage {
    case .null: return nil
    case .blob(let data): return Array(data)
    default: throw damage
    }
  }

  mutating func bytes() throws -> [UInt8] {
    guard let bytes = try bytesOrNull() else { throw damage }
    return bytes
  }

  mutating func textBytes() throws -> String { String(decoding: try bytes(), as: UTF8.self) }

  /// A number that was kept as eight bytes, the highest first.
  mutating func number64() throws -> UInt64 {
    let bytes = try bytes()
    guard bytes.count == 8 else { throw damage }
    return bytes.reduce(0) { $0 << 8 | UInt64($1) }
  }

  mutating func identifier<Tag>() throws -> Identifier<Tag> { try identifier(of: try bytes()) }

  mutating func identifierOrNull<Tag>() throws -> Identifier<Tag>? { try bytesOrNull().map { try identifier(of: $0) } }

  mutating func textBytesOrNull() throws -> String? { try bytesOrNull().map { String(decoding: $0, as: UTF8.self) } }

  private func identifier<Tag>(of bytes: [UInt8]) throws -> Identifier<Tag> {
    guard bytes.count == 16 else { throw damage }
    return Identifier(
      high: bytes[..<8].reduce(0) { $0 << 8 | UInt64($1) }, low: bytes[8...].reduce(0) { $0 << 8 | UInt64($1) })
  }

  mutating func state<State: RawRepresentable<UInt8>>() throws -> State {
    guard let state = UInt8(exactly: try integer()).flatMap(State.init) else { throw damage }
    return state
  }
}
