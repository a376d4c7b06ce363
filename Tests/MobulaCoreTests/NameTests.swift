import FoundationEssentials
import MobulaCore
import Testing

@Suite struct NameTests {
  private let composed: Name = "caf\u{e9}"
  private let decomposed: Name = "cafe\u{301}"

  @Test func bytesAreCompared() {
    #expect(composed.text == decomposed.text, "else this test shows nothing")
    #expect(composed != decomposed && Set([composed, decomposed]).count == 2)
    #expect([composed: 1, decomposed: 2] == [decomposed: 2, composed: 1])
    #expect(Name("K") != "\u{212A}")
    // In the order of bytes: `e` is before the first byte of the accented letter, whatever follows.
    #expect(decomposed < composed && !(composed < decomposed))
    #expect(Name("a") < "ab" && Name("") < "a" && Name("\u{FFFF}") < "\u{10000}")
    #expect(composed.hasPrefix("caf") && !composed.hasPrefix("cafe") && decomposed.hasPrefix("cafe"))
    #expect(decomposed.hasSuffix("\u{301}") && !composed.hasSuffix("\u{301}") && composed.hasSuffix(""))
  }

  @Test func theOrderIsThatOfBytes() {
    var generator = SeededGenerator(seed: 5)
    let names = (0..<2000).map { _ in Name.random(upTo: 4, using: &generator) }
    let bytes = names.map { Array($0.utf8) }
    for index in 1..<names.count {
      let (a, b) = (index - 1, index)
      #expect((names[a] == names[b]) == (bytes[a] == bytes[b]))
      #expect((names[a] < names[b]) == bytes[a].lexicographicallyPrecedes(bytes[b]))
    }
    #expect(Set(names).count == Set(bytes).count)
  }

  /// On the wire and in JSON a name is a text, alone and as a key, and nothing of it is lost.
  @Test func itIsEncodedAsText() throws {
    let cbor = CBOREncoder()
    #expect(try cbor.encode(composed) == cbor.encode(composed.text))
    #expect(try cbor.encode(["a": 1] as [Name: Int]) == cbor.encode(["a": 1]))
    #expect(try cbor.encode(["a": 1] as [Name: Int]) == [0xA1, 0x61, 0x61, 0x01])
    let both: [Name: Int] = [composed: 1, decomposed: 2, "": 3, "\u{0}": 4, "/": 5]
    #expect(try CBORDecoder().decode([Name: Int].self, from: cbor.encode(both)) == both)
    #expect(
      try CBORDecoder().decode([Name].self, from: cbor.encode([composed, decomposed])) == [composed, decomposed])
    let json = try JSONEncoder().encode(["x": composed])
    #expect(String(decoding: json, as: UTF8.self).isSame(as: "{\"x\":\"caf\u{e9}\"}"))
    #expect(try JSONDecoder().decode([String: Name].self, from: json) == ["x": composed])
    #expect(try JSONDecoder().decode([Name: Int].self, from: JSONEncoder().encode(["a": 1] as [Name: Int])) == ["a": 1])
  }

  @Test func dictionariesOfNamesHaveOneForm() throws {
    var generator = SeededGenerator(seed: 6)
    for count in [0, 1, 2, 23, 24, 25, 300] {
      var names: [Name: [Name: Int]] = [:]
      while names.count < count { names[.random(upTo: 9, using: &generator)] = [composed: 1, decomposed: 2] }
      var turned: [Name: [Name: Int]] = Dictionary(minimumCapacity: 1000)
      for (name, value) in names.sorted(by: { $0.key > $1.key }) { turned[name] = value }
      let bytes = try CBOREncoder().encode(names)
      #expect(try bytes == CBOREncoder().encode(turned))
      guard case .map(let pairs) = try CBORValue(decoding: bytes) else { return #expect(Bool(false), "no map") }
      let keys = pairs.map { $0.key.encoded() }
      #expect(keys.count == count && zip(keys, keys.dropFirst()).allSatisfy { $0.lexicographicallyPrecedes($1) })
      #expect(try CBORDecoder().decode([Name: [Name: Int]].self, from: bytes) == names)
    }
  }

  @Test func keysOfMapsAreBytes() throws {
    struct Record: Decodable {
      enum CodingKeys: String, CodingKey { case kelvin = "K" }
      var kelvin: Int
    }
    // Seventeen others, so that the keys are looked up in an index.
    let others = (0..<17).map { CBORValue.Pair(.text(Name("o\($0)")), .unsigned(0)) }
    for more in [[], others] {
      let pairs = more + [.init(.text("\u{212A}"), .unsigned(1)), .init(.text("K"), .unsigned(2))]
      #expect(try CBORDecoder().decode(Record.self, from: CBORValue.map(pairs).encoded()).kelvin == 2)
      #expect(throws: DecodingError.self) {
        try CBORDecoder().decode(Record.self, from: CBORValue.map(pairs.dropLast()).encoded())
      }
    }
  }

  @Test func whatIsNoUTF8IsRefused() {
    for bytes: [UInt8] in [[0x61, 0xFF], [0x62, 0xC3, 0x28], [0x63, 0xED, 0xA0, 0x80], [0x62, 0xC0, 0x80]] {
      #expect(throws: DecodingError.self) { try CBORDecoder().decode(Name.self, from: bytes) }
      #expect(throws: DecodingError.self) { try CBORDecoder().decode([Name: Int].self, from: [0xA1] + bytes + [0x01]) }
    }
  }

  @Test func forPeopleItIsPrintable() {
    #expect("\(composed)".isSame(as: composed.text) && "\(decomposed)".isSame(as: decomposed.text))
    #expect("\(Name("a\u{1B}[31m\n\r\t\u{0}\u{7F}\u{9B}b"))" == #"a\u{1B}[31m\n\r\t\u{0}\u{7F}\u{9B}b"#)
    for value: UInt32 in [
      0x61C, 0x200E, 0x200F, 0x202A, 0x202E, 0x2066, 0x2069, 0x2028, 0x2029, 0xFFFE, 0xFDD0, 0x1FFFF,
    ] {
      let text = "x\(Unicode.Scalar(value)!)y"
      #expect(text.printable == "x\\u{\(String(value, radix: 16, uppercase: true))}y")
    }
    #expect("one\ntwo\u{1B}".printableLines == "one\ntwo\\u{1B}")
    #expect("模型 👩‍🚀 e\u{301}".printable.isSame(as: "模型 👩‍🚀 e\u{301}"))
    #expect(printable(bytes: [0x61, 0xFF, 0xC3, 0xA9, 0xC3, 0x0A, 0x05]) == #"a\xffé\xc3\n\u{5}"#)
    #expect(printable(bytes: []) == "" && printable(bytes: [0xE2, 0x80]) == #"\xe2\x80"#)
  }
}

extension Name {
  /// Any name of at most so many characters, of those that have made trouble somewhere.
  static func random(upTo count: Int, using generator: inout SeededGenerator) -> Name {
    let odd: [Unicode.Scalar] = [
      "\u{0}", "\n", "/", "\\", "\"", " ", "e", "\u{301}", "\u{e9}", "K", "\u{212A}", "\u{1B}", "\u{202E}", "\u{AC00}",
      "\u{1100}", "\u{1161}", "\u{FFFE}", "\u{1F469}", "\u{200D}", "\u{10FFFF}", "a", "\u{7F}",
    ]
    var text = ""
    for _ in 0..<Int.random(in: 0...count, using: &generator) {
      text.unicodeScalars.append(odd.randomElement(using: &generator)!)
    }
    return Name(text)
  }
}
