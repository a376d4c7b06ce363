internal import Glibc

/// A new directory that only this user may look into, and that the caller removes.
///
/// - Parameters:
///   - name: part of its name, for people who find it.
///   - parent: where to make it; `TMPDIR` by default, or `/tmp` where that is no absolute path.
/// - Throws: `MobulaError` (`inputOutput`) when it can't be made there.
package func makeTemporaryDirectory(_ name: String, in parent: String? = nil) throws(MobulaError) -> String {
  let parent = parent ?? currentEnvironment()["TMPDIR"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? "/tmp"
  var template = Array("\(parent)/mobula-\(name)-XXXXXX".utf8CString)
  guard mkdtemp(&template) != nil else {
    throw MobulaError.system("A temporary directory in \(parent) can't be made")
  }
  return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
