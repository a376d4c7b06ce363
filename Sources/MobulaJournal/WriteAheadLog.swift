internal import Foundation
internal import MobulaCore

/// A look at SQLite's write-ahead log before SQLite reads it: damage in its middle makes SQLite take the log to end
/// there, and forget what was committed after it without a word.
///
/// The format is described in "WAL-mode File Format" (sqlite.org/walformat.html): a header of 32 bytes, then frames, of
/// 24 bytes and a page each. A frame is valid if it has the header's two salts and if the checksum over all up to it is
/// right. What remains of a log that was begun anew has other salts.
struct WriteAheadLog {
  private static let headerSize = 32
  private static let frameHeaderSize = 24

  private let bytes: Data
  private let pageSize: Int
  private let isBigEndian: Bool

  /// - Returns: `nil` for a file without a frame.
  init?(_ bytes: Data) {
    self.bytes = bytes
    guard bytes.count > Self.headerSize + Self.frameHeaderSize else { return nil }
    func word(_ offset: Int) -> UInt32 { Self.word(bytes, offset) }
    isBigEndian = word(0) & 1 == 1
    // Of a damaged header, what this build makes.
    let size = Int(word(8))
    pageSize = 512...65_536 ~= size && size.nonzeroBitCount == 1 ? size : 4096
  }

  /// Whether what is after the first frame that is not valid was written after it had been synced: a loss of power
  /// tears no more than the last transaction.
  var isDamaged: Bool {
    let count = (bytes.count - Self.headerSize) / (Self.frameHeaderSize + pageSize)
    guard count > 0 else { return false }
    var sum = (UInt32(0), UInt32(0))
    add(0..<24, to: &sum)
    var valid = 0
    var salts = (word(16), word(20))
    if word(0) & ~1 == 0x377F_0682, sum == (word(24), word(28)) {
      while valid < count, isValid(valid, salts, &sum) { valid += 1 }
    } else {
      salts = (word(offset(0) + 8), word(offset(0) + 12))
    }
    // The end of the transaction in which the first bad frame is.
    guard
      let end = (valid..<count).first(where: { hasSalts($0, salts) && word(offset($0) + 4) != 0 }),
      end + 1 < count
    else { return false }
    return (end + 1..<count).contains { hasSalts($0, salts) }
  }

  private func offset(_ frame: Int) -> Int { Self.headerSize + frame * (Self.frameHeaderSize + pageSize) }

  private func hasSalts(_ frame: Int, _ salts: (UInt32, UInt32)) -> Bool {
    (word(offset(frame) + 8), word(offset(frame) + 12)) == salts
  }

  private func isValid(_ frame: Int, _ salts: (UInt32, UInt32), _ sum: inout (UInt32, UInt32)) -> Bool {
    let start = offset(frame)
    guard hasSalts(frame, salts) else { return false }
    add(start..<start + 8, to: &sum)
    add(start + Self.frameHeaderSize..<start + Self.frameHeaderSize + pageSize, to: &sum)
    return sum == (word(start + 16), word(start + 20))
  }

  private func add(_ range: Range<Int>, to sum: inout (UInt32, UInt32)) {
    for offset in stride(from: range.lowerBound, to: range.upperBound, by: 8) {
      sum.0 &+= summand(offset) &+ sum.1
      sum.1 &+= summand(offset + 4) &+ sum.0
    }
  }

  private func summand(_ offset: Int) -> UInt32 { isBigEndian ? word(offset) : word(offset).byteSwapped }

  private func word(_ offset: Int) -> UInt32 { Self.word(bytes, offset) }

  private static func word(_ bytes: Data, _ offset: Int) -> UInt32 {
    bytes.withUnsafeBytes { UInt32(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
  }
}
