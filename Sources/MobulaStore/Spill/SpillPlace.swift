internal import MobulaCore

/// A place other than a folder for objects that have no room in memory: S3, say.
///
/// Everything in it is one store's alone. Calls may come at the same time, from any task; each is cancelled when its
/// time is over, and need not have stopped by then: what it asks for bytes, or brings, is refused from then on.
public protocol SpillPlace: Sendable {
  /// How messages name it.
  var title: String { get }

  /// Keeps `size` bytes under a name that nothing else has, all or none of them.
  ///
  /// - Parameter bytes: gives those of a range, at most 1 MiB, of any order and number of times.
  /// - Returns: the version, for `read`.
  /// - Throws: why it does not work now.
  func write(
    _ name: String, size: Int, bytes: @escaping @Sendable (Range<Int>) throws -> [UInt8]
  ) async throws -> String

  /// Brings a range of what was written.
  ///
  /// - Parameter piece: takes bytes and where they begin, counted from the item's first byte; in any order, some twice.
  /// - Throws: `MobulaError`: `notFound` when the item is gone, `mismatch` when it is another version; anything else
  ///   may be over later.
  func read(
    _ item: SpillItem, _ range: Range<Int>,
    piece: @escaping @Sendable (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void
  ) async throws

  /// All that is there.
  func items() async throws -> [SpillItem]

  /// Removes what has these names; no error where there is nothing. One that can't be removed is an error, and keeps
  /// none of the others.
  func remove(_ names: [String]) async throws

  /// Removes what remains of writes that never ended.
  ///
  /// - Parameter isNeeded: whether a write of this name is under way; to be asked after it was found.
  func removeUnfinished(unless isNeeded: @escaping @Sendable (String) -> Bool) async throws
}

/// What lies in a `SpillPlace`.
public struct SpillItem: Hashable, Sendable {
  public let name: String
  /// Bytes.
  public let size: Int
  /// What tells it from any other of its name.
  public let version: String

  public init(name: String, size: Int, version: String) {
    self.name = name
    self.size = size
    self.version = version
  }
}

/// An item's name: `<object>.<instance>.<number>`.
///
/// The number is another for every write, so that a removal that comes late, or a write that was given up and comes
/// about all the same, never meets a later copy of the object.
struct SpillItemName: Hashable, Sendable, LosslessStringConvertible {
  let object: ObjectID
  let instance: SpillInstance
  let number: UInt64

  init(_ object: ObjectID, _ instance: SpillInstance, number: UInt64 = .random(in: 0 ... .max)) {
    self.object = object
    self.instance = instance
    self.number = number
  }

  init?(_ description: String) {
    let parts = description.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 3, let object = ObjectID(String(parts[0])), let instance = SpillInstance(String(parts[1])),
      let number = UInt64(parts[2]), "\(number)" == parts[2]
    else { return nil }
    self.init(object, instance, number: number)
  }

  var description: String { "\(object).\(instance).\(number)" }
}
