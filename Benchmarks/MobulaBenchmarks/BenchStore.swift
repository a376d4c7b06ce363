import FoundationEssentials
import Glibc
import MobulaCore
import MobulaStore
import Synchronization

/// A store in this process, in a folder of its own.
final class BenchStore: Sendable {
  let store: Store
  let gate: Gate
  private let folder: String
  private let newest: Newest?

  /// - Parameter keepsNewest: delete what clients seal but for so many, the newest.
  init(capacity: Int, keepsNewest: Int? = nil, gone: @escaping @Sendable (Int) -> Void = { _ in }) throws {
    let folder = "/tmp/mobula-benchmark-\(getpid())-\(String(UInt32.random(in: .min ... .max), radix: 36))"
    try systemCall("The folder \(folder) can't be made") { mkdir(folder, 0o700) }
    let gate = Gate()
    let newest = keepsNewest.map { Newest($0) }
    var events = StoreEvents()
    events.sealed = { objects in
      gate.pass()
      newest?.add(objects.map(\.object))
    }
    events.gone = { gone($0.count) }
    let configuration = StoreConfiguration(capacity: ByteCount(capacity), socket: folder + "/store.sock")
    store = try Store(configuration)
    (self.gate, self.newest, self.folder) = (gate, newest, folder)
    try store.start(events)
    if let newest {
      let store = store
      detachThread(named: "delete") { newest.run(store) }
    }
  }

  func client() throws -> StoreClient {
    try StoreClient(socket: store.configuration.socket, ticket: store.ticket(), name: "benchmark")
  }

  func close() {
    gate.open()
    newest?.stop()
    store.close()
    try? FileManager.default.removeItem(atPath: folder)
  }
}

/// Stops the store's thread while it tells its host what was sealed: awake, as far as clients can see.
final class Gate: Sendable {
  private let isClosed = Atomic(false)
  private let waiting = Atomic(false)

  func close() { isClosed.store(true, ordering: .sequentiallyConsistent) }
  func open() { isClosed.store(false, ordering: .sequentiallyConsistent) }

  /// Called by the store's thread.
  func pass() {
    while isClosed.load(ordering: .sequentiallyConsistent) {
      waiting.store(true, ordering: .sequentiallyConsistent)
      usleep(200)
    }
    waiting.store(false, ordering: .sequentiallyConsistent)
  }

  /// Returns once the store's thread waits here.
  func waitForArrival() { while !waiting.load(ordering: .sequentiallyConsistent) { usleep(200) } }
}

/// Deletes all but the newest objects, on a thread of its own.
private final class Newest: Sendable {
  private let count: Int
  private let objects = Mutex<(all: [ObjectID], isStopped: Bool)>(([], false))

  init(_ count: Int) { self.count = count }

  func add(_ added: [ObjectID]) { objects.withLock { $0.all += added } }
  func stop() { objects.withLock { $0.isStopped = true } }

  func run(_ store: Store) {
    while true {
      let (old, isStopped) = objects.withLock { objects in
        let old = Array(objects.all.dropLast(count))
        objects.all.removeFirst(old.count)
        return (old, objects.isStopped)
      }
      if isStopped { return }
      for object in old { store.delete(object) }
      if old.isEmpty { usleep(100) }
    }
  }
}

/// Bytes that the system could give to processes now; 0 when it doesn't say.
func availableMemory() -> Int {
  guard let text = try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8) else { return 0 }
  return field("MemAvailable:", of: text)
}

/// The bytes of a line like `Pss:  12 kB`; 0 when there is none.
func field(_ name: String, of text: String) -> Int {
  for line in text.split(separator: "\n") where line.hasPrefix(name) {
    return (Int(line.dropFirst(name.count).split(separator: " ").first ?? "") ?? 0) * 1024
  }
  return 0
}
