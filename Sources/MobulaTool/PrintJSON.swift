import FoundationEssentials
import Glibc
import Mobula
import MobulaCore

/// Prints a value as JSON, keys sorted.
func printJSON(_ value: some Encodable) throws {
  // Exactly: programs read it.
  Swift.print(try ExactJSON().encode(value))
}

/// Prints a list as JSON, as `printJSON` does, but piece by piece.
struct JSONList {
  private let encoder = ExactJSON()
  private var isEmpty = true

  mutating func add(_ elements: [some Encodable]) throws {
    var text = ""
    for element in elements {
      text += isEmpty ? "[\n  " : ",\n  "
      isEmpty = false
      text += try encoder.encode(element, indentation: 2)
    }
    Swift.print(text, terminator: "")
  }

  func finish() { Swift.print(isEmpty ? "[]" : "\n]") }
}

/// Whether figures can be written there, before they cost minutes.
///
/// - Throws: `MobulaError` (`inputOutput`, `invalidArgument`).
func checkOutput(_ path: String?) throws(MobulaError) {
  guard let path, path != "-" else { return }
  let target = try FileTarget(path, name: "mobula.json")
  let slash = target.path.lastIndex(of: "/")
  let folder = slash.map { $0 == target.path.startIndex ? "/" : String(target.path[..<$0]) } ?? "."
  let isThere = access(target.path, F_OK) == 0
  try systemCall("\(path) can't be written") { access(isThere ? target.path : folder, W_OK) }
}

/// Writes a command's figures to where they were asked for: a file, which appears whole, or what else is there.
///
/// - Throws: `MobulaError` (`inputOutput`, `invalidArgument`).
func writeOutput(_ data: Data, to path: String) throws(MobulaError) {
  let target = try FileTarget(path, name: "mobula.json")
  let bytes = Array(data)
  do { try bytes.withUnsafeBytes { _ = try target.write($0) } } catch let error as MobulaError { throw error } catch {
    throw MobulaError(.inputOutput, "\(path) can't be written: \(error)")
  }
}
