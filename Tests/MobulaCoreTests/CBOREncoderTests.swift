import MobulaCore
import MobulaTestKit
import Testing

struct CBOREncoderTests {
  private struct PartKey: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(_ text: String) { stringValue = text }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  /// Runs a closure as its `encode(to:)`.
  private struct Closure: Encodable {
    var body: (any Encoder) throws -> Void
    func encode(to encoder: any Encoder) throws { try body(encoder) }
  }

  private func notation(_ body: @escaping (any Encoder) throws -> Void) throws -> String {
    try CBORValue(decoding: CBOREncoder().encode(Closure(body: body))).description
  }

  private struct Failure: Error {}

  @Test func aValueThatThrowsLeavesNothingBehind() throws {
    let text = try notation { encoder in
      var container = encoder.container(keyedBy: PartKey.self)
      try container.encode(1, forKey: PartKey("a"))
      let failing = Closure { encoder in
        var list = encoder.unkeyedContainer()
        try list.encode(5)
        var inner = list.nestedContainer(keyedBy: PartKey.self)
        try inner.encode("x", forKey: PartKey("y"))
        throw Failure()
      }
      #expect(throws: Failure.self) { try container.encode(failing, forKey: PartKey("b")) }
      let single = Closure { encoder in
        var value = encoder.singleValueContainer()
        #expect(throws: Failure.self) { try value.encode(failing) }
        try value.encode(2)
      }
      try container.encode(single, forKey: PartKey("c"))
    }
    #expect(text == #"{"a": 1, "c": 2}"#)
  }

  @Test func misuseIsAnError() {
    func refused(_ body: @escaping (any Encoder) throws -> Void) {
      #expect(throws: EncodingError.self) { try CBOREncoder().encode(Closure(body: body)) }
    }
    refused { encoder in
      _ = encoder.unkeyedContainer()
      _ = encoder.container(keyedBy: PartKey.self)
    }
    refused { encoder in
      var value = encoder.singleValueContainer()
      try value.encode(1)
      try value.encode(2)
    }
    refused { encoder in
      var value = encoder.singleValueContainer()
      try value.encode(1)
      _ = encoder.unkeyedContainer()
    }
    refused { encoder in
      var list = encoder.unkeyedContainer()
      var kept: (any UnkeyedEncodingContainer)?
      try list.encode(Closure { kept = $0.unkeyedContainer() })
      try kept?.encode(1)
    }
    refused { encoder in
      var list = encoder.unkeyedContainer()
      var same = list
      try list.encode(Closure { _ in try same.encode(1) })
    }
  }

  /// Fills nested containers in a random order, and a model beside them.
  private final class Model {
    enum Kind { case map, array, single, nothing }
    var kind: Kind
    var parts: [(key: String, model: Model)] = []
    var leaf = CBORValue.null

    init(_ kind: Kind) { self.kind = kind }

    init(_ leaf: CBORValue) {
      kind = .single
      self.leaf = leaf
    }

    var value: CBORValue {
      switch kind {
      case .map: .map(parts.map { CBORValue.Pair(.text(MobulaCore.Name($0.key)), $0.model.value) })
      case .array: .array(parts.map(\.model.value))
      case .single: leaf
      case .nothing: .map([])
      }
    }
  }

  private enum Container {
    case keyed(KeyedEncodingContainer<PartKey>)
    case unkeyed(any UnkeyedEncodingContainer)
    case encoder(any Encoder)
  }

  private func fill(_ encoder: any Encoder, _ root: Model, steps: Int, generator: inout SeededGenerator) throws {
    var open: [(Container, Model)] = [(.encoder(encoder), root)]
    for step in 0..<steps {
      let index = Int.random(in: 0..<open.count, using: &generator)
      let model = open[index].1
      let key = PartKey("key \(step)")
      let choice = Int.random(in: 0..<8, using: &generator)
      let number = Int.random(in: 0..<1000, using: &generator)
      let list = Array(repeating: number, count: number % 40)
      let leaf =
        choice == 0 ? CBORValue.unsigned(UInt64(number)) : .array(list.map { .unsigned(UInt64($0)) })
      switch open[index].0 {
      case .encoder(let encoder):
        if choice < 2, open.count > 1 {
          var single = encoder.singleValueContainer()
          if choice == 0 { try single.encode(number) } else { try single.encode(list) }
          model.kind = .single
          model.leaf = leaf
          open.remove(at: index)
        } else if choice < 5 {
          model.kind = .map
          open[index].0 = .keyed(encoder.container(keyedBy: PartKey.self))
        } else {
          model.kind = .array
          open[index].0 = .unkeyed(encoder.unkeyedContainer())
        }
      case .keyed(var container):
        let part: Model
        switch choice {
        case 0:
          try container.encode(number, forKey: key)
          part = Model(leaf)
        case 5:
          part = Model(.map)
          open.append((.keyed(container.nestedContainer(keyedBy: PartKey.self, forKey: key)), part))
        case 6:
          part = Model(.array)
          open.append((.unkeyed(container.nestedUnkeyedContainer(forKey: key)), part))
        case 7:
          part = Model(.nothing)
          open.append((.encoder(container.superEncoder(forKey: key)), part))
        default:
          try container.encode(list, forKey: key)
          part = Model(leaf)
        }
        model.parts.append((key.stringValue, part))
      case .unkeyed(var container):
        let part: Model
        switch choice {
        case 0:
          try container.encode(number)
          part = Model(leaf)
        case 5:
          part = Model(.map)
          open.append((.keyed(container.nestedContainer(keyedBy: PartKey.self)), part))
        case 6:
          part = Model(.array)
          open.append((.unkeyed(container.nestedUnkeyedContainer()), part))
        case 7:
          part = Model(.nothing)
          open.append((.encoder(container.superEncoder()), part))
        default:
          try container.encode(list)
          part = Model(leaf)
        }
        model.parts.append(("", part))
        #expect(container.count == model.parts.count)
      }
    }
  }

  @Test(arguments: 1...200 as ClosedRange<UInt64>) func nestedContainersCanBeFilledInAnyOrder(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let root = Model(.nothing)
    let steps = Int.random(in: 1...150, using: &generator)
    let value = Closure { encoder in try fill(encoder, root, steps: steps, generator: &generator) }
    let bytes = try CBOREncoder().encode([value])
    #expect(bytes == CBORValue.array([root.value]).encoded(), "seed \(seed)")
  }
}
