import FoundationEssentials
import MobulaCore
import Testing

@testable import MobulaTool

/// What is printed as JSON is what was to be printed, to the byte.
@Suite struct ExactJSONTests {
  private struct Everything: Codable, Hashable {
    enum Kind: String, Codable { case one, two }
    var text: String
    var number: Int
    var largest: UInt64
    var real: Double
    var small: Float
    var flag: Bool
    var kind: Kind
    var nothing: Int?
    var list: [Int]
    var nested: [[String]]
    var names: [Name: Int]
    var object: ObjectID
  }

  private static let everything = Everything(
    text: "a\"b\\c\n\r\t\u{8}\u{C}\u{1}\u{7F}/\u{E9}\u{1F469}\u{202E}", number: -42, largest: .max, real: 0.1,
    small: 1.5,
    flag: true, kind: .two, nothing: nil, list: [], nested: [[], ["x"], ["y", "z"]], names: ["b": 1, "a": 2],
    object: .random(job: JobID(7)))

  @Test(arguments: [false, true]) func aDecoderReadsWhatWasWritten(isReadable: Bool) throws {
    let text = try ExactJSON(isReadable: isReadable).encode([Self.everything])
    #expect(try JSONDecoder().decode([Everything].self, from: Data(text.utf8)) == [Self.everything])
    #expect(text.contains("\n") == isReadable)
    #expect(!text.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" })
  }

  @Test func keysThatLookAlikeStayTwo() throws {
    let values: [Name: Int] = ["caf\u{E9}": 1, "cafe\u{301}": 2]
    // The shorter first: its fourth byte is above the other's.
    let text = try ExactJSON(isReadable: false).encode(values)
    #expect(text.isSame(as: "{\"cafe\u{301}\":2,\"caf\u{E9}\":1}"))
  }

  @Test func layout() throws {
    struct Pair: Encodable {
      var b: [Int]
      var a: [String: Int]
    }
    #expect(
      try ExactJSON().encode([Pair(b: [1, 2], a: [:])]) == """
        [
          {
            "a": {},
            "b": [
              1,
              2
            ]
          }
        ]
        """)
    #expect(try ExactJSON().encode(3.0) == "3" && ExactJSON().encode(1e300) == "1e+300")
    #expect(throws: EncodingError.self) { try ExactJSON().encode(Double.nan) }
  }

  @Test func messagesQuoteArgumentsInOneLine() {
    let said = CommandMessage.printable(
      "Error: \"a\nError: b\u{1B}[31m\" is wrong.\nUsage: mobula", naming: ["--x=a\nError: b\u{1B}[31m", "\n"])
    #expect(said == "Error: \"a\\nError: b\\u{1B}[31m\" is wrong.\nUsage: mobula")
  }
}
