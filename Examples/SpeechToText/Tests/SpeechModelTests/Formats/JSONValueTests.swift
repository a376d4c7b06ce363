import Foundation
import Testing

@testable import SpeechModel

struct JSONValueTests {
  private func parse(_ text: String) throws -> JSONValue { try parse(Array(text.utf8)) }

  private func parse(_ bytes: [UInt8]) throws -> JSONValue {
    try bytes.withUnsafeBytes { try JSONValue.parse($0, name: "x") }
  }

  @Test func readsValues() throws {
    #expect(try parse(" 12 ").integer == 12)
    #expect(try parse("-0").integer == 0)
    #expect(try parse("9223372036854775807").integer == .max)
    #expect(try parse("9223372036854775808").integer == nil)
    #expect(try parse("9223372036854775808").double == 0x1p63)
    #expect(try parse("1.5e2").double == 150)
    #expect(try parse("1e999").double == .infinity)
    #expect(try parse("[true,false,null]").array?.count == 3)
    #expect(try parse("{\"a\":1,\"a\":2}")["a"]?.integer == 2)
    #expect(try parse("{\"a\":1}")["b"] == nil)
    #expect(try parse(#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#).string == "\"\\/\u{8}\u{C}\n\r\té😀é")
  }

  /// Unicode holds the two keys to be equivalent; a vocabulary doesn't.
  @Test func keepsEquivalentKeysApart() throws {
    let entries = try #require(try parse("{\"\u{E9}\":1,\"e\u{301}\":2}").object)
    #expect(entries.map(\.key.utf8.count) == [2, 3])
  }

  @Test(arguments: [
    "", " ", "{", "[", "[1", "[1,", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "tru",
    "nul", "truex",
    "1 2", "-", "+1", "1e", "--1", ".5", "NaN", "Infinity", "0x10", "\"", "\"\\", "\"\\u12\"", "\"\\u12g4\"",
    "\"\\ud800\"",
    "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\x\"", "\"a\nb\"", "\u{FEFF}1", "'a'",
  ])
  func refuses(_ text: String) throws {
    #expect(speechError { _ = try parse(text) }?.code == .badModel)
  }

  @Test func refusesWhatIsTooMuch() throws {
    #expect(speechError { _ = try parse([0x22, 0xFF, 0x22]) }?.message.contains("UTF-8") == true)
    #expect(try parse(String(repeating: "[", count: 64) + String(repeating: "]", count: 64)).array != nil)
    for count in [65, 1_000_000] {
      #expect(speechError { _ = try parse(String(repeating: "[", count: count)) }?.message.contains("nested") == true)
      #expect(
        speechError { _ = try parse(String(repeating: "{\"a\":", count: count)) }?.message.contains("nested") == true)
    }
    let long = [UInt8](repeating: 0x20, count: JSONValue.maximumByteCount + 1)
    #expect(speechError { _ = try parse(long) }?.code == .badModel)
  }

  @Test func quotesWhatItReads() throws {
    let text = (0..<0x250).compactMap { Unicode.Scalar($0 as UInt32).map(String.init) }.joined() + "▁😀"
    #expect(try parse(JSONValue.quoted(text)).string == text)
    #expect(try JSONDecoder().decode([String].self, from: Data("[\(JSONValue.quoted(text))]".utf8)) == [text])
  }
}
