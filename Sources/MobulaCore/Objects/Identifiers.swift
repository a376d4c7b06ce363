internal import Synchronization

/// A 128-bit identifier, made at random, whose `Tag` keeps one kind from being
/// taken for another. Its text form is 32 lower-case hexadecimal digits; CBOR has it
/// as the 16 bytes that those are, and other coders as text.
public struct Identifier<Tag>: Hashable, Sendable, Comparable, LosslessStringConvertible {
  /// The first 64 bits.
  public let high: UInt64
  /// The last 64 bits.
  public let low: UInt64

  /// An identifier of these 128 bits.
  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// What dictionaries and sets ask for. Nearly every decision about an object begins with a look into one of them: one
  /// multiplication instead of SipHash makes it several times as fast. Whoever chooses identifiers can't make them
  /// meet, since he doesn't know the keys, which each process draws.
  @inlinable
  public func _rawHashValue(seed: Int) -> Int {
    let product = (low ^ HashKeys.shared.low).multipliedFullWidth(
      by: high ^ HashKeys.shared.high ^ UInt64(truncatingIfNeeded: seed))
    return Int(truncatingIfNeeded: product.high ^ product.low)
  }

  /// A new identifier from the system's random numbers.
  public static func random() -> Self {
    var generator = SystemRandomNumberGenerator()
    return random(using: &generator)
  }

  /// A new identifier from `generator`, so that a simulation can repeat it.
  public static func random(using generator: inout some RandomNumberGenerator) -> Self {
    Self(high: generator.next(), low: generator.next())
  }

  /// Reads 32 hexadecimal digits; `nil` for anything else.
  public init?(_ description: String) {
    guard description.utf8.count == 32 else { return nil }
    var (high, low) = (UInt64(0), UInt64(0))
    for byte in description.utf8 {
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      default: return nil
      }
      (high, low) = (high << 4 | low >> 60, low << 4 | UInt64(digit))
    }
    self.init(high: high, low: low)
  }

  public var description: String {
    String(unsafeUninitializedCapacity: 32) { text in
      for index in 0..<32 {
        let word = index < 16 ? high : low
        let digit = UInt8(truncatingIfNeeded: word >> UInt64(60 - 4 * (index & 15)) & 15)
        text[index] = digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
      }
      return 32
    }
  }

  /// The first eight digits, enough for a log line.
  public var short: String { String(description.prefix(8)) }

  @inlinable
  public static func < (a: Self, b: Self) -> Bool { (a.high, a.low) < (b.high, b.low) }
}

extension Identifier: Codable {
  public init(from decoder: any Decoder) throws {
    if let item = decoder as? CBORItem {
      let (high, low) = try item.words(Self.self)
      self.init(high: high, low: low)
      return
    }
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard let value = Self(text) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "an identifier has 32 hexadecimal digits, not \"\(text.prefix(40))\"")
    }
    self = value
  }

  public func encode(to encoder: any Encoder) throws {
    if let encoder = encoder as? CBORFrameEncoder { return try encoder.encode(words: (high, low)) }
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

/// Of a `HostID`.
public enum HostTag {}
/// Of a `PodID`.
public enum PodTag {}
/// Of a `WorkerID`.
public enum WorkerTag {}
/// Of a `LeaseID`.
public enum LeaseTag {}
/// Of a `RemoteActorID`.
public enum ActorTag {}
/// Of a `ClusterID`.
public enum ClusterTag {}
/// Of an `ObjectID`.
public enum ObjectTag {}
/// Of a `ProcessNonce`.
public enum NonceTag {}
/// Of a `FolderID`.
public enum FolderTag {}
/// Of a `JobSecret`.
public enum JobSecretTag {}

/// A compute instance. Given or made at start, never the machine's own id:
/// two emulated hosts on one machine are two hosts.
public typealias HostID = Identifier<HostTag>
/// A schedulable share of a host.
public typealias PodID = Identifier<PodTag>
/// A process that runs tasks and actors.
public typealias WorkerID = Identifier<WorkerTag>
/// The right to run work of one resource shape on one worker.
public typealias LeaseID = Identifier<LeaseTag>
/// An actor in whichever process.
public typealias RemoteActorID = Identifier<ActorTag>
/// A cluster: made with its first head, and kept in its journal.
public typealias ClusterID = Identifier<ClusterTag>
/// Immutable bytes in the stores of a cluster. The first 32 bits are its job.
public typealias ObjectID = Identifier<ObjectTag>

/// Drawn by a process at its start: two processes that use one identifier differ in it, whatever their clocks say.
public typealias ProcessNonce = Identifier<NonceTag>
/// A folder of one machine, as long as that runs: a copy of the folder is another.
public typealias FolderID = Identifier<FolderTag>
/// What a driver proves with that a job is its own, also at a head that was restarted. From the system's random numbers.
public typealias JobSecret = Identifier<JobSecretTag>

/// All that one driver started. The head gives them out, from 1; 0 stands for
/// the command line, whose objects have names.
public struct JobID: Hashable, Sendable, Codable, Comparable, CustomStringConvertible {
  /// The number.
  public let number: UInt32

  /// The job of this number.
  public init(_ number: UInt32) { self.number = number }

  /// The job of what the command line puts and fetches.
  public static let commandLine = JobID(0)

  /// The highest number that a head believes from others, who may be wrong: half of all that there are, so that a
  /// head that counts on from it never comes to the end.
  package static let highestBelieved = JobID(1 << 31 - 1)

  /// The job after this one; `nil` after the last that there is a number for.
  package var next: JobID? { number < .max ? JobID(number + 1) : nil }

  public var description: String { "\(number)" }
  public static func < (a: Self, b: Self) -> Bool { a.number < b.number }

  public init(from decoder: any Decoder) throws {
    number = try decoder.singleValueContainer().decode(UInt32.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(number)
  }
}

extension Identifier where Tag == ObjectTag {
  /// A new object's identifier: the job's number and 96 random bits.
  public static func random(job: JobID) -> ObjectID {
    let random = ProcessRandom.shared.next()
    return Self(high: UInt64(job.number) << 32 | random.high & 0xFFFF_FFFF, low: random.low)
  }

  /// The job that the object belongs to.
  public var job: JobID { JobID(UInt32(high >> 32)) }
}

/// Random bits without a system call each: xoroshiro128++ (Blackman, Vigna: "Scrambled linear
/// pseudorandom number generators", 2021), begun with the system's. No secrets are made of them.
final class ProcessRandom: Sendable {
  static let shared = ProcessRandom()
  private let state: Mutex<(UInt64, UInt64)>

  private init() {
    var system = SystemRandomNumberGenerator()
    state = Mutex((system.next(), system.next() | 1))
  }

  func next() -> (high: UInt64, low: UInt64) {
    state.withLock { state in (Self.step(&state), Self.step(&state)) }
  }

  private static func step(_ state: inout (UInt64, UInt64)) -> UInt64 {
    func rotated(_ word: UInt64, _ count: UInt64) -> UInt64 { word << count | word >> (64 - count) }
    var (a, b) = state
    let result = rotated(a &+ b, 17) &+ a
    b ^= a
    a = rotated(a, 49) ^ b ^ b << 21
    state = (a, rotated(b, 28))
    return result
  }
}

/// What hashes of identifiers are mixed with in this process.
@usableFromInline
struct HashKeys: Sendable {
  @usableFromInline let high: UInt64
  @usableFromInline let low: UInt64

  @usableFromInline static let shared = HashKeys(high: .random(in: 1 ... .max) | 1, low: .random(in: 1 ... .max))

  @usableFromInline
  init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }
}
