import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaStore

/// A temporary folder, removed with its owner.
final class TemporaryFolder: Sendable {
  let path: String

  // Not in `TMPDIR`: the paths of sockets must be short.
  init() { path = try! makeTemporaryDirectory("store", in: "/tmp") }

  deinit { _ = try? ChildProcess.spawn("/bin/rm", ["-rf", path]) }
}

/// A store that serves at a socket of its own, closed with its owner.
final class RunningStore: Sendable {
  let store: Store
  let folder: TemporaryFolder
  private let told = Mutex<(sealed: [SealedObject], gone: [ObjectID], ended: [StoreClientID])>(([], [], []))

  init(
    capacity: Int = 64 << 20, spills: Bool = false, roomDeadline: Duration = .seconds(2), warmShare: Double = 0.5,
    spareShare: Double = 0, folder: TemporaryFolder = TemporaryFolder(), keeper: KeeperConnection? = nil,
    place: (any SpillPlace)? = nil
  ) throws {
    self.folder = folder
    var configuration = StoreConfiguration(capacity: ByteCount(capacity), socket: folder.path + "/store.sock")
    if spills { configuration.spillDirectories = [folder.path + "/spill 1", folder.path + "/spill 2"] }
    configuration.roomDeadline = roomDeadline
    configuration.warmShare = warmShare
    configuration.spareShare = spareShare
    configuration.keeper = keeper
    configuration.spillPlace = place
    configuration.spillDeadline = .seconds(1)
    store = try Store(configuration)
    var events = StoreEvents()
    events.sealed = { [weak self] objects in self?.told.withLock { $0.sealed += objects } }
    events.gone = { [weak self] objects in self?.told.withLock { $0.gone += objects } }
    events.clientGone = { [weak self] client in self?.told.withLock { $0.ended.append(client) } }
    try store.start(events)
  }

  deinit { store.close() }

  var sealed: [SealedObject] { told.withLock { $0.sealed } }
  var gone: [ObjectID] { told.withLock { $0.gone } }
  var ended: [StoreClientID] { told.withLock { $0.ended } }

  func client(_ name: String = "test") throws -> StoreClient {
    try StoreClient(socket: store.configuration.socket, ticket: store.ticket(), name: name)
  }
}

extension ObjectID {
  /// An identifier that tells tests apart.
  static func number(_ number: Int) -> ObjectID { ObjectID(high: 1 << 32, low: UInt64(number)) }
}

extension StoreClient {
  /// Puts `size` bytes that follow from the seed.
  func put(_ object: ObjectID, size: Int, seed: UInt8 = 7, contains: [ObjectID] = []) throws {
    let draft = try draft(object, size: size, contains: contains)
    pattern(size: size, seed: seed).withUnsafeBytes { draft.memory.copyMemory(from: $0) }
    try draft.seal(holds: true)
  }

  /// The object's bytes, found in the index or by a call.
  func bytes(of object: ObjectID) throws -> [UInt8] {
    if let pinned = try pin(object) { return Array(pinned.bytes) }
    let pinned = try pinSlowly(object)
    return Array(pinned.bytes)
  }
}

func pattern(size: Int, seed: UInt8) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: size) { bytes, count in
    for index in 0..<size { bytes[index] = UInt8(truncatingIfNeeded: index &* 31 &+ index >> 8 &+ Int(seed)) }
    count = size
  }
}

/// Waits up to ten seconds for something to become true.
func eventually(_ body: () throws -> Bool) rethrows -> Bool {
  let deadline = ContinuousClock.now + .seconds(10)
  while ContinuousClock.now < deadline {
    if try body() { return true }
    usleep(2000)
  }
  return false
}
