internal import Glibc
internal import MobulaCore

/// What a journal's commit is called: which journal it is of, and how many came before it there.
struct JournalMark: Hashable, Sendable {
  /// A journal's own; a copy that is made as a backup has another.
  var instance: JournalInstance
  var number: UInt64 = 0

  init(instance: JournalInstance, number: UInt64 = 0) {
    self.instance = instance
    self.number = number
  }

  /// As `write` left it; `nil` where nothing was written.
  init?(in file: CInt) {
    var words: (UInt64, UInt64, UInt64) = (0, 0, 0)
    let count = withUnsafeMutableBytes(of: &words) { pread(file, $0.baseAddress, $0.count, 0) }
    guard count == 24 else { return nil }
    self.init(
      instance: JournalInstance(high: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1)),
      number: UInt64(bigEndian: words.2))
  }

  var next: JournalMark { JournalMark(instance: instance, number: number + 1) }

  /// Into the first 24 bytes, which outlive the process, if not the machine's power.
  func write(to file: CInt) {
    var words = (instance.high.bigEndian, instance.low.bigEndian, number.bigEndian)
    _ = withUnsafeBytes(of: &words) { pwrite(file, $0.baseAddress, $0.count, 0) }
  }
}

enum JournalTag {}
typealias JournalInstance = Identifier<JournalTag>
