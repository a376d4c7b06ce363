import FoundationEssentials
import Glibc
import MobulaCore
import MobulaStore
import Synchronization

/// The store, with an owner that deletes at random and fills cached objects, if it is told to.
final class StoreRole: Sendable {
  private let arguments: SendableArguments
  private let store: Store
  private let sealed: Mutex<[(object: ObjectID, size: Int)]>

  struct SendableArguments: @unchecked Sendable {
    // Immutable strings and numbers.
    let all: Arguments
  }

  init(_ arguments: Arguments) throws {
    raiseDescriptorLimit()
    self.arguments = SendableArguments(all: arguments)
    var configuration = StoreConfiguration(
      capacity: ByteCount(arguments.number("capacity", 64 << 20)), socket: arguments["socket"])
    configuration.keeper = KeeperConnection.fromEnvironment()
    configuration.spillDirectories = arguments["spill"].split(separator: ",").map(String.init)
    configuration.roomDeadline = .milliseconds(Int64(arguments.number("roomMilliseconds", 10_000)))
    store = try Store(configuration)
    sealed = Mutex([])
  }

  func run() throws {
    var events = StoreEvents()
    events.sealed = { [weak self] objects in
      self?.sealed.withLock { $0 += objects.map { ($0.object, $0.geometry.objectSize) } }
    }
    try store.start(events)
    say("ready \(store.incarnation) \(store.recovered.map { "\($0.objects) \($0.clients)" } ?? "anew")")
    if arguments.all.number("churn") > 0 { detachThread(named: "churn") { self.churn() } }
    readCommands { answer($0) }
  }

  private func answer(_ line: [Substring]) {
    func object() -> ObjectID? { line.count > 1 ? ObjectID(String(line[1])) : nil }
    switch line.first {
    case "ticket": say(json(store.ticket()))
    case "statistics":
      for client in store.clients { store.takeAnnouncements(of: client) }
      say(json(store.statistics))
    case "delete": say("\(object().map { store.delete($0) } ?? false)")
    case "restore":
      do {
        try store.restore(object()!)
        say("ok")
      } catch {
        say("error \(error)")
      }
    case "stopChurn":
      stopping.raise()
      while !stopped.isUp { usleep(1000) }
      say("ok")
    case "deleteAll":
      deleteAll { _ in true }
      say("ok")
    case "deleteAllBut":
      // Of one maker, by the high word of its identifiers.
      deleteAll { "\($0.high)" != line.last.map(String.init) }
      say("ok")
    default: say("what?")
    }
  }

  private func deleteAll(where isUnwanted: (ObjectID) -> Bool) {
    for client in store.clients { store.takeAnnouncements(of: client) }
    for job in store.statistics.jobs {
      for object in store.objects(of: job.job) where isUnwanted(object) { store.delete(object) }
    }
  }

  private func json(_ value: some Encodable) -> String {
    (try? JSONEncoder().encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "null"
  }

  private let stopping = Flag()
  private let stopped = Flag()

  /// Deletes sealed objects at random when they are more than `churn` bytes, and receives cached ones as slot 0.
  private func churn() {
    let limit = arguments.all.number("churn")
    let progress = Progress(arguments.all["progress"])
    var random = Random(seed: UInt64(arguments.all.number("seed")))
    var received = 0
    while !stopping.isUp {
      usleep(300)
      let doomed = sealed.withLock { sealed in
        var doomed: [ObjectID] = []
        var total = sealed.reduce(0) { $0 + $1.size }
        while total > limit {
          let one = sealed.remove(at: .random(in: 0..<sealed.count, using: &random))
          total -= one.size
          doomed.append(one.object)
        }
        return doomed
      }
      for object in doomed { store.delete(object) }
      let content = Content(.mixed, slot: 0, number: received)
      guard let geometry = try? ChunkGeometry(objectSize: content.size),
        let writer = try? store.receive(content.object, geometry: geometry)
      else { continue }
      let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: content.size, alignment: 8)
      defer { bytes.deallocate() }
      content.fill(bytes)
      while let index = writer.claimChunk(from: 0) {
        let part = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[geometry.range(of: index)])
        writer.memory(of: index).copyMemory(from: part)
        writer.commit(index, checksum: crc32c(part))
      }
      do {
        _ = try writer.complete()
        received += 1
        progress[0] = received
      } catch {
        fail("receiving \(content.object): \(error)")
      }
    }
    stopped.raise()
  }
}
