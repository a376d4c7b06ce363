import MobulaCore

/// What an object of these tests is, all of which follows from its identifier: whoever reads one
/// knows every byte.
///
/// The high word has the maker's slot, and above 32 bits the kind; the low word counts.
struct Content {
  enum Kind: UInt64 {
    case small = 1
    /// Mostly small, some of hundreds of kilobytes, few of megabytes.
    case mixed = 2
    case big = 3
    /// Small, and some of up to a hundred kilobytes.
    case modest = 4
  }

  let object: ObjectID

  init(_ object: ObjectID) { self.object = object }

  init(_ kind: Kind, slot: Int, number: Int) {
    object = ObjectID(high: kind.rawValue << 32 | UInt64(slot), low: UInt64(number))
  }

  private static func mix(_ value: UInt64) -> UInt64 {
    var word = value &+ 0x9E37_79B9_7F4A_7C15
    word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
    return word ^ word >> 31
  }

  private var seed: UInt64 { Self.mix(object.high &* 31 &+ object.low) }

  var size: Int {
    let random = Int(seed >> 16)
    switch Kind(rawValue: object.high >> 32) {
    case .big: return 5_000_000 + random % 1000
    case .mixed:
      switch random % 100 {
      case 0..<80: return 1 + random / 100 % 2000
      case 80..<97: return 1 + random / 100 % 300_000
      default: return 1 + random / 100 % 6_000_000
      }
    case .modest: return random % 10 < 8 ? 1 + random / 10 % 2000 : 1 + random / 10 % 100_000
    default: return 200
    }
  }

  @inline(__always)
  private func word(_ index: Int, _ seed: UInt64) -> UInt64 { (seed &+ UInt64(index)) &* 0xD6E8_FEB8_6659_FD93 }

  func fill(_ memory: UnsafeMutableRawBufferPointer) {
    let seed = seed
    for index in 0..<memory.count / 8 {
      memory.storeBytes(of: word(index, seed), toByteOffset: index * 8, as: UInt64.self)
    }
    for at in memory.count / 8 * 8..<memory.count { memory[at] = UInt8(truncatingIfNeeded: word(at, seed)) }
  }

  /// The first byte found that is another's, in all of a small object, and in samples of a large one.
  func fault(in bytes: UnsafeRawBufferPointer, samples: Int = 512) -> String? {
    guard bytes.count == size else { return "\(bytes.count) bytes in place of \(size)" }
    let seed = seed
    let words = bytes.count / 8
    func check(_ index: Int) -> String? {
      let found = bytes.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self)
      return found == word(index, seed) ? nil : "word \(index) of \(words) is \(String(found, radix: 16))"
    }
    if words <= 16_384 {
      for index in 0..<words { if let fault = check(index) { return fault } }
    } else {
      var random = Self.mix(UInt64(UInt(bitPattern: bytes.baseAddress!)) ^ seed)
      for index in [0, words - 1] { if let fault = check(index) { return fault } }
      for _ in 0..<samples {
        random = Self.mix(random)
        if let fault = check(Int(random % UInt64(words))) { return fault }
      }
    }
    for at in words * 8..<bytes.count where bytes[at] != UInt8(truncatingIfNeeded: word(at, seed)) {
      return "byte \(at) of \(bytes.count)"
    }
    return nil
  }
}

/// SplitMix64, as in the tests: what a process does follows from its seed and its peers.
struct Random: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var word = state
    word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
    return word ^ word >> 31
  }
}
