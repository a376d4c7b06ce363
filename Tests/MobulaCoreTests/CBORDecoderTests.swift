import MobulaCore
import Testing

struct CBORDecoderTests {
  private struct Point: Codable, Equatable {
    var x: Int
    var y: Int
    var label: String?
  }

  private struct Line: Codable, Equatable {
    var points: [Point]
  }

  private func encoded(_ value: CBORValue) -> [UInt8] { value.encoded() }

  private func map(_ pairs: (String, CBORValue)...) -> CBORValue {
    .map(pairs.map { CBORValue.Pair(.text(Name($0)), $1) })
  }

  @Test func keysComeInAnyOrderAndUnknownOnesArePassedOver() throws {
    let value = CBORValue.map([
      .init(.unsigned(1), .array([.null])), .init(.text("y"), .unsigned(2)),
      .init(.text("more"), .tagged(9, .array([.text("deep")]))), .init(.array([]), .float(1)),
      .init(.text("x"), .unsigned(1)),
    ])
    #expect(try CBORDecoder().decode(Point.self, from: encoded(value)) == Point(x: 1, y: 2))
  }

  @Test func ofEqualKeysTheFirstCounts() throws {
    let value = map(("x", .unsigned(1)), ("x", .unsigned(5)), ("y", .unsigned(2)))
    #expect(try CBORDecoder().decode(Point.self, from: encoded(value)) == Point(x: 1, y: 2))
    #expect(try CBORDecoder().decode([String: Int].self, from: encoded(value)) == ["x": 1, "y": 2])
  }

  @Test func indefiniteLengthsAndTagsAreAccepted() throws {
    // {_ "points": [_ 55({_ "x": 1, (_ "y"): 2, "label": (_ "a", "b")})]}
    let hex = "bf66706f696e74739fd837bf6178017f6179ff02656c6162656c7f61616162ffffffff"
    #expect(
      try CBORDecoder().decode(Line.self, from: bytes(hex: hex)) == Line(points: [Point(x: 1, y: 2, label: "ab")]))
    #expect(try CBORDecoder().decode(ByteString.self, from: bytes(hex: "5f42010243030405ff")).bytes == [1, 2, 3, 4, 5])
    #expect(try CBORDecoder().decode([UInt8].self, from: bytes(hex: "83010203")) == [1, 2, 3])
    #expect(try CBORDecoder().decode([[Int]].self, from: bytes(hex: "9f9fff9f01ffff")) == [[], [1]])
    #expect(
      try CBORDecoder().decode([String: [Int]].self, from: bytes(hex: "bf61619f01ff616280ff")) == ["a": [1], "b": []])
  }

  @Test func manyKeysAreFoundInAnyOrder() throws {
    struct Reversed: Decodable {
      var values: [Int] = []
      init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Name.self)
        for index in (0..<500).reversed() {
          #expect(!container.contains(Name(stringValue: "absent \(index)")))
          values.append(try container.decode(Int.self, forKey: Name(stringValue: "\(index)")))
        }
      }
    }
    struct Name: CodingKey {
      var stringValue: String
      var intValue: Int? { nil }
      init(stringValue: String) { self.stringValue = stringValue }
      init?(intValue: Int) { nil }
    }
    let pairs = (0..<500).map { CBORValue.Pair(.text(MobulaCore.Name("\($0)")), .unsigned($0)) }
    #expect(try CBORDecoder().decode(Reversed.self, from: encoded(.map(pairs))).values == (0..<500).reversed())
  }

  @Test func errorsSayWhereTheyAre() throws {
    let good = map(("x", .unsigned(1)), ("y", .unsigned(2)))
    func decode(_ second: CBORValue) throws {
      _ = try CBORDecoder().decode(Line.self, from: encoded(map(("points", .array([good, second])))))
    }
    #expect { try decode(map(("x", .unsigned(1)))) } throws: { error in
      guard case .keyNotFound(let key, let context)? = error as? DecodingError else { return false }
      return key.stringValue == "y" && context.codingPath.map(\.stringValue) == ["points", "Index 1"]
    }
    #expect { try decode(map(("x", .text("1")), ("y", .unsigned(2)))) } throws: { error in
      guard case .typeMismatch(let type, let context)? = error as? DecodingError else { return false }
      return type == Int.self && context.codingPath.map(\.stringValue) == ["points", "Index 1", "x"]
        && context.debugDescription == "There is a text where Int was expected."
    }
    #expect { try decode(map(("x", .null), ("y", .unsigned(2)))) } throws: { error in
      guard case .valueNotFound(let type, let context)? = error as? DecodingError else { return false }
      return type == Int.self && context.codingPath.map(\.stringValue) == ["points", "Index 1", "x"]
    }
    #expect { try decode(.unsigned(1)) } throws: { error in
      guard case .typeMismatch(_, let context)? = error as? DecodingError else { return false }
      return context.codingPath.map(\.stringValue) == ["points", "Index 1"]
    }
  }

  @Test(arguments: [
    // Trailing bytes; an unknown key's value cut short; a length nobody can have; text that is not in UTF-8.
    "a261780161790200", "a3617801617902617a82", "a3617801617902617a5bffffffffffffffff",
    "a3617801617902656c6162656c61ff",
    "bf617801617902", "",
  ])
  func brokenBytesAreAnError(hex: String) {
    #expect(throws: DecodingError.self) { try CBORDecoder().decode(Point.self, from: bytes(hex: hex)) }
  }

  /// A dictionary's keys are asked for where Codable can't throw: what is broken there is found all the same.
  @Test(arguments: ["bf616101", "a2616101", "a261610161ff02", "a2616101616218"])
  func brokenDictionariesAreAnError(hex: String) {
    #expect(throws: DecodingError.self) { try CBORDecoder().decode([String: Int].self, from: bytes(hex: hex)) }
  }

  @Test func nestingIsLimited() throws {
    struct Nested: Codable { var inner: [Nested] }
    var value = Nested(inner: [])
    for _ in 1..<32 { value = Nested(inner: [value]) }
    let bytes = try CBOREncoder().encode(value)
    #expect(try CBOREncoder().encode(CBORDecoder().decode(Nested.self, from: bytes)) == bytes)
    #expect(throws: EncodingError.self) { try CBOREncoder().encode(Nested(inner: [value])) }
    #expect(throws: DecodingError.self) {
      let deeper = [0xA1, 0x65] + Array("inner".utf8) + [0x81] + bytes
      return try CBORDecoder().decode(Nested.self, from: deeper)
    }
  }

  @Test func anyCollectionOfBytesCanBeDecoded() throws {
    let bytes: [UInt8] = [0xFF, 0x82, 1, 2, 0xFF]
    #expect(try CBORDecoder().decode([Int].self, from: bytes[1..<4]) == [1, 2])
    #expect(
      try bytes.withUnsafeBytes { try CBORDecoder().decode([Int].self, from: .init(rebasing: $0[1..<4])) } == [1, 2])
    #expect(try CBORDecoder().decode([Int].self, from: bytes.lazy.filter { $0 != 0xFF }) == [1, 2])
  }

  @Test func aDecoderThatIsKeptFindsNothing() throws {
    struct Keeper: Decodable {
      var decoder: any Decoder
      init(from decoder: any Decoder) throws { self.decoder = decoder }
    }
    let kept = try CBORDecoder().decode(Keeper.self, from: [0x82, 1, 2]).decoder
    #expect(throws: DecodingError.self) { try kept.unkeyedContainer() }
  }
}
