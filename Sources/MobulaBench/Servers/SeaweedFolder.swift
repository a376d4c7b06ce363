internal import FoundationEssentials
internal import Glibc
internal import MobulaCore

/// The temporary folder of one SeaweedFS: its data, configuration and log. Readable by this user only.
struct SeaweedFolder: Sendable {
  let path: String

  /// - Parameter parent: where to make it; `TMPDIR`, `/tmp` by default.
  /// - Throws: `MobulaError` (`inputOutput`) when no folder can be made there.
  init(in parent: String? = nil) throws(MobulaError) {
    path = try makeTemporaryDirectory("seaweed", in: parent)
    try systemCall("\(path)/data can't be made") { mkdir("\(path)/data", 0o700) }
  }

  var log: String { "\(path)/log" }

  func write(_ text: String, to name: String) throws(MobulaError) -> String {
    let file = "\(path)/\(name)"
    let raw = try systemCall("\(file) can't be made") { open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600) }
    let descriptor = OwnedDescriptor(owning: raw)
    let bytes = Array(text.utf8)
    let count = try systemCall("\(file) can't be written") { Glibc.write(descriptor.rawValue, bytes, bytes.count) }
    guard count == bytes.count else {
      throw MobulaError(.inputOutput, "\(file) can't be written: check that the disk has room.")
    }
    return file
  }

  func openLog() throws(MobulaError) -> OwnedDescriptor {
    OwnedDescriptor(
      owning: try systemCall("\(log) can't be made") { open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600) })
  }

  /// The last lines of the log, for an error.
  func endOfLog() -> String {
    guard let data = FileManager.default.contents(atPath: log) else { return "" }
    return String(decoding: data.suffix(600), as: UTF8.self).split(separator: "\n").suffix(3).joined(separator: " / ")
  }

  func remove() { try? FileManager.default.removeItem(atPath: path) }
}
