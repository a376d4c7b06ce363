import FoundationEssentials

/// Prints a value as JSON, keys sorted.
func printJSON(_ value: some Encodable, dates: JSONEncoder.DateEncodingStrategy = .deferredToDate) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  encoder.dateEncodingStrategy = dates
  print(String(decoding: try encoder.encode(value), as: UTF8.self))
}
