import MobulaCore
import Testing

struct CBORCodableTests {
  private func roundTrip<T: Codable & Equatable>(_ value: T, _ notation: String? = nil) throws {
    let bytes = try CBOREncoder().encode(value)
    #expect(try CBORDecoder().decode(T.self, from: bytes) == value)
    if let notation { #expect(try CBORValue(decoding: bytes).description == notation) }
  }

  private enum Shape: Codable, Equatable {
    case point
    case circle(radius: Double)
    case named(String, [Int])
  }

  private struct Everything: Codable, Equatable {
    var flag = true
    var integer = -5
    var large = UInt64.max
    var small = Int64.min
    var number = 1.1
    var single: Float = 0.1
    var text = "h\u{E9}"
    var bytes: [UInt8] = [1, 2, 3]
    var string = ByteString([9, 8])
    var list = Array(0..<300)
    var absent: String?
    var present: Int? = 7
    var table = ["a": [1], "b": []]
    var numbers = [1: "one", -2: "minus two"]
    var shapes = [Shape.point, .circle(radius: 2.5), .named("x", [1, 2])]
    var byShape = [HostID(high: 3, low: 4): 1]
    var id = HostID(high: 1, low: 2)
    var optionals: [Int?] = [1, nil, 3]
    var rows = Array(repeating: Array(repeating: 0.5, count: 30), count: 30)
  }

  private struct Empty: Codable, Equatable {}

  @Test func everyKindOfValueComesBack() throws { try roundTrip(Everything()) }

  @Test func valuesHaveTheExpectedForm() throws {
    try roundTrip(7, "7")
    try roundTrip("text", #""text""#)
    try roundTrip([1, 2], "[1, 2]")
    try roundTrip([UInt8]([0, 255]), "h'00ff'")
    try roundTrip(ByteString([1]), "h'01'")
    try roundTrip([ByteString([1]), ByteString()], "[h'01', h'']")
    try roundTrip([Int](), "[]")
    try roundTrip([Int8](), "[]")
    try roundTrip([String: Int](), "{}")
    try roundTrip(Int?.none, "null")
    try roundTrip(Int?.some(3), "3")
    try roundTrip([1, nil] as [Int?], "[1, null]")
    try roundTrip(["a": 1], #"{"a": 1}"#)
    try roundTrip([1: true], #"{"1": true}"#)
    try roundTrip([HostID(high: 0, low: 1): 5], "[h'00000000000000000000000000000001', 5]")
    try roundTrip(Shape.point, #"{"point": {}}"#)
    try roundTrip(Shape.circle(radius: 2), #"{"circle": {"radius": 2.0}}"#)
    try roundTrip(Shape.named("x", [1]), #"{"named": {"_0": "x", "_1": [1]}}"#)
    try roundTrip(Empty(), "{}")
    try roundTrip([Empty(), Empty()], "[{}, {}]")
    try roundTrip(Endpoint.tcp(host: "::1", port: 5), #""[::1]:5""#)
  }

  @Test(arguments: [0, 1, 23, 24, 255, 256, 65_535, 65_536]) func countsOfEveryWidthComeBack(count: Int) throws {
    try roundTrip(Array(0..<count))
    try roundTrip([[Array(0..<count)], []])
    try roundTrip(Dictionary(uniqueKeysWithValues: (0..<min(count, 300)).map { ("key \($0)", [$0]) }))
    try roundTrip(String(repeating: "x", count: count))
    try roundTrip([UInt8](repeating: 7, count: count))
  }

  private func checkWidth<T: FixedWidthInteger & Codable>(_ type: T.Type) throws {
    for value in [T.min, T.max, 0, 1, 23, 24, 100] { try roundTrip(value) }
    let decoder = CBORDecoder()
    let above = Int128(T.max) + 1
    let below = Int128(T.min) - 1
    for (number, value) in [
      (above, above <= UInt64.max ? CBORValue.unsigned(UInt64(above)) : nil),
      (below, .negative(UInt64(-1 - below))),
    ] {
      guard let value else { continue }
      #expect("\(number) is no \(type)") { try decoder.decode(type, from: value.encoded()) } throws: { error in
        guard case .dataCorrupted(let context)? = error as? DecodingError else { return false }
        return context.debugDescription == "\(number) does not fit into \(type)."
      }
    }
  }

  @Test func integersKeepTheirRange() throws {
    try checkWidth(Int.self)
    try checkWidth(Int8.self)
    try checkWidth(Int16.self)
    try checkWidth(Int32.self)
    try checkWidth(Int64.self)
    try checkWidth(UInt.self)
    try checkWidth(UInt8.self)
    try checkWidth(UInt16.self)
    try checkWidth(UInt32.self)
    try checkWidth(UInt64.self)
  }

  private class Animal: Codable {
    var name: String
    init(name: String) { self.name = name }
  }

  /// Shares its superclass's container.
  private final class Dog: Animal {
    var age = 0
    private enum CodingKeys: String, CodingKey { case age }
    init(name: String, age: Int) {
      self.age = age
      super.init(name: name)
    }
    required init(from decoder: any Decoder) throws {
      age = try decoder.container(keyedBy: CodingKeys.self).decode(Int.self, forKey: .age)
      try super.init(from: decoder)
    }
    override func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(age, forKey: .age)
      try super.encode(to: encoder)
    }
  }

  /// Gives its superclass an encoder of its own.
  private final class Cat: Animal {
    var lives = [9]
    override init(name: String) { super.init(name: name) }
    required init(from decoder: any Decoder) throws {
      var container = try decoder.unkeyedContainer()
      let list = try container.decode([Int].self)
      let parent = try container.superDecoder()
      lives = list
      try super.init(from: parent)
    }
    override func encode(to encoder: any Encoder) throws {
      var container = encoder.unkeyedContainer()
      try container.encode(lives)
      try super.encode(to: container.superEncoder())
    }
  }

  @Test func classesAndTheirSuperclassesComeBack() throws {
    let dog = try CBOREncoder().encode(Dog(name: "Rex", age: 4))
    #expect(try CBORValue(decoding: dog).description == #"{"age": 4, "name": "Rex"}"#)
    let decoded = try CBORDecoder().decode(Dog.self, from: dog)
    #expect(decoded.name == "Rex" && decoded.age == 4)

    let cat = try CBOREncoder().encode(Cat(name: "Tom"))
    #expect(try CBORValue(decoding: cat).description == #"[[9], {"name": "Tom"}]"#)
    #expect(try CBORDecoder().decode(Cat.self, from: cat).name == "Tom")
  }

  private struct Contextual: Codable {
    static let key = CodingUserInfoKey(rawValue: "unit")!
    var seen: Int
    init() { seen = 0 }
    init(from decoder: any Decoder) throws { seen = decoder.userInfo[Self.key] as? Int ?? -1 }
    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      try container.encode(encoder.userInfo[Self.key] as? Int ?? -1)
    }
  }

  @Test func userInfoIsPassedOn() throws {
    var encoder = CBOREncoder()
    encoder.userInfo[Contextual.key] = 3
    #expect(try encoder.encode([Contextual()]) == [0x81, 3])
    var decoder = CBORDecoder()
    decoder.userInfo[Contextual.key] = 4
    #expect(try decoder.decode([Contextual].self, from: [0x81, 3])[0].seen == 4)
  }
}
