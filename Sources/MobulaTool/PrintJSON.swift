import FoundationEssentials
import Mobula
import MobulaCore

/// Prints a value as JSON, keys sorted.
func printJSON(_ value: some Encodable, dates: JSONEncoder.DateEncodingStrategy = .deferredToDate) throws {
  let encoder = readableJSON
  encoder.dateEncodingStrategy = dates
  // Exactly: programs read it.
  Swift.print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

private var readableJSON: JSONEncoder {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  return encoder
}

/// Prints a list as JSON, as `printJSON` does, but piece by piece.
struct JSONList {
  private let encoder = readableJSON
  private var isEmpty = true

  mutating func add(_ elements: [some Encodable]) throws {
    var text = ""
    for element in elements {
      text += isEmpty ? "[\n" : ",\n"
      isEmpty = false
      // Two spaces more before each line; a text in JSON has no other ends of lines.
      let lines = String(decoding: try encoder.encode(element), as: UTF8.self).split(separator: "\n")
      text += lines.map { "  " + $0 }.joined(separator: "\n")
    }
    Swift.print(text, terminator: "")
  }

  func finish() { Swift.print(isEmpty ? "[]" : "\n]") }
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
