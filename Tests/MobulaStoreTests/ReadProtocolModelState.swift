/// The words that the store writes; each value fits four bits.
enum ModelLocation: UInt8 {
  case state = 1
  /// 1: leads to the entry. 2: a tombstone.
  case bucket
  /// 1: A. 2: B.
  case id
  /// Arena, offset and size in one: the number of the incarnation.
  case place
  /// The object's memory; each word holds the number of the incarnation.
  case word0
  case word1
}

/// The word `stateAndGeneration`, in four bits.
enum ModelWord {
  enum Kind: UInt8 {
    case empty, ready, evicting, doomed
  }

  static func kind(_ word: UInt8) -> Kind { Kind(rawValue: word >> 2)! }
  static func generation(_ word: UInt8) -> UInt8 { word & 3 }
  static func isReady(_ word: UInt8) -> Bool { kind(word) == .ready }
  static func empty(generation: UInt8) -> UInt8 { Kind.empty.rawValue << 2 | generation }
  static func ready(generation: UInt8) -> UInt8 { Kind.ready.rawValue << 2 | generation }
  static func evicting(generation: UInt8) -> UInt8 { Kind.evicting.rawValue << 2 | generation }
  static func doomed(generation: UInt8) -> UInt8 { Kind.doomed.rawValue << 2 | generation }
}

/// What the protocol promises not to happen.
enum ModelViolation: Equatable {
  /// A client that believes to have A pinned read something else, or after the memory was free.
  case wrongBytes
  /// The store freed the memory while such a client had yet to read.
  case freedWhileRead
}

/// A client, with its pin word and what its store buffer holds, in 32 bits.
struct ModelClient: Equatable {
  /// The steps of a get, in the order of the program.
  enum Step: UInt8, CaseIterable {
    case bucket, state, id, place, pin, fence, recheck, word0, word1, unpin

    static let all: UInt16 = 0x3FF
    var bit: UInt16 { 1 << rawValue }
    private var isStore: Bool { self == .pin || self == .unpin }
    private var isBranch: Bool { [.bucket, .state, .id, .recheck].contains(self) }

    /// Whether weak memory has this step wait for an `earlier` one of the program.
    func mustFollow(_ earlier: Step, _ change: ModelChange) -> Bool {
      let isAcquire =
        switch earlier {
        case .bucket: change != .bucketRelaxed
        case .state: change != .stateNotAcquired
        case .recheck: change != .recheckNotAcquired
        default: false
        }
      let isRelease =
        switch self {
        case .pin: change == .acquireReleaseInsteadOfFences
        case .unpin: change != .unpinNotReleased
        default: false
        }
      let isSameWord = (earlier == .state && self == .recheck) || (earlier.isStore && isStore)
      let isFenced = self == .fence || earlier == .fence
      return isAcquire || isRelease || isSameWord || isFenced || (isStore && earlier.isBranch)
    }
  }

  private(set) var bits: UInt32 = 0

  init() {}

  init(gets: Int, omitted: UInt16) {
    getsLeft = UInt8(gets)
    done = omitted
  }

  private subscript(at: UInt32, width: UInt32) -> UInt32 {
    get { bits >> at & (1 << width - 1) }
    set { bits = bits & ~((1 << width - 1) << at) | newValue << at }
  }

  /// The steps of this get that have happened.
  var done: UInt16 {
    get { UInt16(self[0, 10]) }
    set { self[0, 10] = UInt32(newValue) }
  }
  var seen: UInt8 {
    get { UInt8(self[10, 4]) }
    set { self[10, 4] = UInt32(newValue) }
  }
  var place: UInt8 {
    get { UInt8(self[14, 2]) }
    set { self[14, 2] = UInt32(newValue) }
  }
  /// Wrong bytes were read ahead of the second look at the state, which decides whether it matters.
  var hasReadAmiss: Bool {
    get { self[16, 1] == 1 }
    set { self[16, 1] = newValue ? 1 : 0 }
  }
  /// The second look found another state.
  var isFailing: Bool {
    get { self[17, 1] == 1 }
    set { self[17, 1] = newValue ? 1 : 0 }
  }
  var getsLeft: UInt8 {
    get { UInt8(self[18, 2]) }
    set { self[18, 2] = UInt32(newValue) }
  }
  /// The store's running scan has looked at this pin word, and found nothing.
  var isScanned: Bool {
    get { self[20, 1] == 1 }
    set { self[20, 1] = newValue ? 1 : 0 }
  }
  /// The pin word as the store sees it.
  var pin: UInt8 {
    get { UInt8(self[21, 1]) }
    set { self[21, 1] = UInt32(newValue) }
  }
  /// At most four values, two bits each, the oldest lowest: 1 and 2 stand for 0 and 1.
  private var buffer: UInt32 {
    get { self[22, 8] }
    set { self[22, 8] = newValue }
  }

  var isDead: Bool {
    get { self[30, 1] == 1 }
    set { self[30, 1] = newValue ? 1 : 0 }
  }

  var hasBuffered: Bool { buffer != 0 }

  /// The client takes the object for pinned, and has yet to read some of it.
  var believes: Bool {
    let taken = Step.pin.bit | Step.fence.bit | Step.recheck.bit
    let words = Step.word0.bit | Step.word1.bit
    return getsLeft > 0 && done & taken == taken && !isFailing && done & words != words
  }

  mutating func write(_ value: UInt8, buffered: Bool) {
    guard buffered else {
      pin = value
      return
    }
    precondition(buffer < 1 << 6, "a client's store buffer is full")
    var shift: UInt32 = 0
    while buffer >> shift != 0 { shift += 2 }
    buffer |= UInt32(value + 1) << shift
  }

  mutating func drain() {
    pin = UInt8(buffer & 3) - 1
    buffer >>= 2
  }

  mutating func die() {
    while getsLeft > 0 { endGet(omitted: 0) }
    isDead = true
  }

  mutating func endGet(omitted: UInt16) {
    getsLeft -= 1
    done = getsLeft > 0 ? omitted : 0
    seen = 0
    place = 0
    hasReadAmiss = false
    isFailing = false
  }
}

/// Where the store is in its program.
struct ModelStore: Equatable {
  enum Step: UInt8 {
    case mark, fence, scan, putBack
    case doom, doomBucket, doomFence, doomScan
    case tombstone, empty
    case word0, word1, id, place, ready, publish
    case successor, successorFence, successorScan, successorPutsBack, successorBucket
    case finished
  }

  var step = Step.mark
  /// The number of the object that the store works on, from 1.
  var incarnation: UInt8 = 1
  /// The incarnation that clients may read; 0: none. Nobody in the protocol reads this.
  var live: UInt8 = 1
  private var flags: UInt8 = 0

  init(deathsLeft: UInt8 = 0) { flags = deathsLeft }

  var deathsLeft: UInt8 {
    get { flags & 3 }
    set { flags = flags & ~3 | newValue }
  }
  var isDead: Bool {
    get { flags & 4 != 0 }
    set { flags = newValue ? flags | 4 : flags & ~4 }
  }
  var forgets: Bool {
    get { flags & 8 != 0 }
    set { flags = newValue ? flags | 8 : flags & ~8 }
  }

  var bits: UInt32 {
    UInt32(step.rawValue) | UInt32(incarnation) << 8 | UInt32(live) << 16 | UInt32(flags) << 24
  }
}

/// Everything that can differ between two moments, in 32 bytes.
struct ModelState: Equatable {
  var first = ModelClient()
  var second = ModelClient()
  private var words: UInt32 = 0
  var store = ModelStore()
  /// The store's buffer, a byte each, the oldest lowest: three bits of location, four of value, one of release.
  private(set) var buffer: UInt128 = 0

  subscript(client number: Int) -> ModelClient {
    get { number == 0 ? first : second }
    set { if number == 0 { first = newValue } else { second = newValue } }
  }

  /// Memory as everybody sees it.
  subscript(location: ModelLocation) -> UInt8 {
    get { UInt8(words >> (4 * UInt32(location.rawValue)) & 15) }
    set {
      let shift = 4 * UInt32(location.rawValue)
      words = words & ~(15 << shift) | UInt32(newValue) << shift
    }
  }

  var buffered: Int { (128 - buffer.leadingZeroBitCount + 7) / 8 }
  /// Only a store without fences gets this far.
  var bufferIsFull: Bool { buffered == 14 }

  mutating func append(_ location: ModelLocation, _ value: UInt8, _ isRelease: Bool) {
    let entry = location.rawValue | value << 3 | (isRelease ? 128 : 0)
    buffer |= UInt128(entry) << UInt128(8 * buffered)
  }

  func bufferedStore(_ index: Int) -> (location: ModelLocation, value: UInt8, isRelease: Bool) {
    let entry = UInt8(truncatingIfNeeded: buffer >> UInt128(8 * index))
    return (ModelLocation(rawValue: entry & 7)!, entry >> 3 & 15, entry & 128 != 0)
  }

  mutating func drain(_ index: Int) {
    let entry = bufferedStore(index)
    self[entry.location] = entry.value
    let below = (UInt128(1) << UInt128(8 * index)) - 1
    buffer = buffer & below | buffer >> 8 & ~below
  }

  /// Clients are alike: their order makes no difference.
  mutating func order() {
    if first.bits > second.bits { swap(&first, &second) }
  }

  var hash: UInt64 {
    var hash = UInt64(first.bits) | UInt64(second.bits) << 32
    hash = Self.mixed(hash) ^ (UInt64(words) | UInt64(store.bits) << 32)
    hash = Self.mixed(hash) ^ UInt64(truncatingIfNeeded: buffer)
    hash = Self.mixed(hash) ^ UInt64(truncatingIfNeeded: buffer >> 64)
    return Self.mixed(hash)
  }

  private static func mixed(_ word: UInt64) -> UInt64 {
    let product = (word ^ word >> 29) &* 0x9E37_79B9_7F4A_7C15
    return product ^ product >> 32
  }
}
