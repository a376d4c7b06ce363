import MobulaControl
import MobulaCore

/// A process on a host that holds objects: a driver or a worker. What it holds is so, whatever others know of it.
final class SimulatedClient {
  let number: UInt64
  let name: String
  unowned let machine: SimulatedMachine
  private let world: ClusterSimulation
  private(set) var isAlive = true
  private var references: [ObjectID: Int] = [:]
  /// Which time it is that it holds an object.
  private var times: [ObjectID: UInt64] = [:]
  /// What it put itself, or the head once knew that it holds: nobody may free it.
  private(set) var sure: Set<ObjectID> = []
  /// Objects that the head knows that this process holds.
  private var known: Set<ObjectID> = []
  /// Who wants to hear that the head knows.
  private var waiting: [ObjectID: [() -> Void]] = [:]
  private weak var host: SimulatedHost?
  /// The job that ends with this process.
  var drivenJob: JobID?
  var onEnd: (() -> Void)?

  init(_ name: String, on machine: SimulatedMachine) {
    self.name = name
    self.machine = machine
    world = machine.world
    number = world.number()
    machine.clients.append(self)
    attachSoon()
  }

  var held: [ObjectID] { references.keys.sorted() }
  func holds(_ object: ObjectID) -> Bool { references[object] != nil }
  /// What it holds, and since which time.
  var holdings: [ObjectID: UInt64] { times }
  var isAttached: Bool { host != nil }

  // MARK: The host's process

  func attachSoon() {
    world.after(world.milliseconds(2...60)) {
      guard self.isAlive, let host = self.machine.host, host.isAlive, self.host !== host else { return }
      self.host = host
      host.attach(self)
    }
  }

  func hostIsGone() {
    host = nil
    known = []
  }

  /// The host has told the head of these.
  func confirmed(_ holdings: [ObjectID: UInt64]) {
    guard isAlive else { return }
    for object in holdings.keys.sorted() where times[object] == holdings[object] {
      known.insert(object)
      // A reference that comes too late, since who sent it has ended, is one to something that is gone.
      if world.head?.state.hasBuried(object) != true { sure.insert(object) }
      for then in waiting.removeValue(forKey: object) ?? [] { then() }
    }
  }

  // MARK: References

  /// Takes another reference; `then` is called once the head knows of it, or nobody waits for that any more.
  func take(_ object: ObjectID, then: @escaping () -> Void = {}) {
    guard isAlive else { return then() }
    references[object, default: 0] += 1
    world.detail("\(name) takes \(object): \(references[object]!)")
    if references[object] == 1 { times[object] = world.number() }
    if known.contains(object) { return then() }
    waiting[object, default: []].append(then)
    if references[object] == 1 { host?.hold([object], by: self) }
  }

  func letGo(_ object: ObjectID) {
    guard isAlive, let count = references[object] else { return }
    references[object] = count > 1 ? count - 1 : nil
    world.detail("\(name) lets go of \(object): \(count - 1)")
    if count > 1 { return }
    known.remove(object)
    sure.remove(object)
    times[object] = nil
    let waiting = waiting.removeValue(forKey: object) ?? []
    host?.release([object], by: self)
    for then in waiting { then() }
  }

  /// Puts an object; `nil` while there is no host.
  func put(_ object: ObjectID, containing contents: [ObjectID]) -> Bool {
    guard isAlive, let host, host.isAlive else { return false }
    references[object] = 1
    times[object] = world.number()
    sure.insert(object)
    world.detail("\(name) puts \(object) with \(contents)")
    world.truth.contents[object] = contents
    host.made(object, contents, by: self)
    return true
  }

  /// Sends a reference: it is kept here until the head knows that the receiver has it.
  func pass(_ object: ObjectID, to other: SimulatedClient) {
    guard isAlive, references[object] != nil else { return }
    references[object]! += 1
    world.detail("\(name) passes \(object) to \(other.name)")
    let isEarly = world.options.mutation == .senderLetsGoEarly
    if isEarly { letGo(object) }
    world.after(world.milliseconds(1...15)) {
      guard other.isAlive, self.isAlive else { return isEarly ? () : self.letGo(object) }
      other.take(object) {
        if isEarly { return }
        self.world.after(self.world.milliseconds(0...5)) { self.letGo(object) }
      }
    }
  }

  func end() {
    guard isAlive else { return }
    isAlive = false
    machine.remove(self)
    host = nil
    // Whoever is the host by then sees it, whether the process came back or not.
    world.after(world.milliseconds(0...5)) { self.machine.host?.gone(self) }
    let waiting = waiting.sorted { $0.key < $1.key }.flatMap(\.value)
    self.waiting = [:]
    (references, times, sure) = ([:], [:], [])
    for then in waiting { then() }
    onEnd?()
    onEnd = nil
  }
}
