/// A place in an array, or a key that Codable's own rules name.
enum CBORKey: CodingKey {
  case index(Int)
  case name(String)

  static let superclass = Self.name("super")

  init?(stringValue: String) { self = .name(stringValue) }
  init?(intValue: Int) { self = .index(intValue) }

  var stringValue: String {
    switch self {
    case .index(let index): "Index \(index)"
    case .name(let name): name
    }
  }

  var intValue: Int? {
    if case .index(let index) = self { index } else { nil }
  }
}
