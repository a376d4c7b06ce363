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
  /// Those of the references that the process itself does not have, which are kept until something is known elsewhere:
  /// its program can't let go of them.
  private var kept: [ObjectID: Int] = [:]
  /// Which time it is that it holds an object.
  private var times: [ObjectID: UInt64] = [:]
  /// What it put itself, or the head once knew that it holds: nobody may free it.
  private(set) var sure: Set<ObjectID> = []
  /// Who gave it what the head does not know yet that it holds, and was sure of it: as long as that process lives,
  /// nobody may free it either.
  private var lenders: [ObjectID: SimulatedClient] = [:]
  /// Objects that the head knows that this process holds.
  private var known: Set<ObjectID> = []
  /// Who wants to hear that the head knows all that was said here before, in their order.
  private var waiting: [(number: UInt64, then: () -> Void)] = []
  private weak var host: SimulatedHost?
  /// The job that ends with this process.
  var drivenJob: JobID?
  /// The actor that lives in this worker, or is being made.
  var actor: (id: RemoteActorID, incarnation: UInt64, isThere: Bool)?
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
  /// What its program has references to.
  var owned: [ObjectID] { references.filter { $0.value > kept[$0.key] ?? 0 }.keys.sorted() }
  func holds(_ object: ObjectID) -> Bool { references[object] != nil }
  /// What it holds, and since which time.
  var holdings: [ObjectID: UInt64] { times }
  var isAttached: Bool { host != nil }
  /// What nobody may free as long as this process holds it, in order.
  ///
  /// - Parameter isMember: whether a machine's host is one that the head knows.
  func relied(on isMember: (SimulatedMachine) -> Bool) -> [ObjectID] {
    sure.union(lenders.filter { $0.value.isAlive && isMember($0.value.machine) }.keys).sorted()
  }

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

  /// The last who waits by now.
  var lastWaiting: UInt64 { waiting.last?.number ?? 0 }

  /// The host has told the head of these, and of all that was said when `lastWaiting` was asked for.
  func confirmed(_ holdings: [ObjectID: UInt64], upTo last: UInt64) {
    guard isAlive else { return }
    for object in holdings.keys.sorted() where times[object] == holdings[object] {
      known.insert(object)
      lenders[object] = nil
      // A reference that comes too late, since who sent it has ended, is one to something that is gone.
      if world.head?.state.hasBuried(object) != true { sure.insert(object) }
    }
    let heard = waiting.filter { $0.number <= last }
    waiting.removeAll { $0.number <= last }
    for waiter in heard { waiter.then() }
  }

  // MARK: References

  /// Takes another reference; `then` is called once the head knows of it, or nobody waits for that any more. As with
  /// `ProcessHolds.flush`, that is when it knows all that was said before, also where the reference is over by then: what
  /// has the object inside may have been made meanwhile.
  func take(_ object: ObjectID, from lender: SimulatedClient? = nil, then: @escaping () -> Void = {}) {
    guard isAlive else { return then() }
    if let lender, !known.contains(object) { lenders[object] = lender }
    references[object, default: 0] += 1
    world.detail("\(name) takes \(object): \(references[object]!)")
    if references[object] == 1 { times[object] = world.number() }
    if known.contains(object) { return then() }
    waiting.append((world.number(), then))
    host?.hold([object], by: self)
  }

  /// The program lets go of a reference that it has.
  func letGo(_ object: ObjectID) {
    if references[object] ?? 0 > kept[object] ?? 0 { remove(object) }
  }

  /// Keeps an object that it holds until `unkeep`, whatever its program does.
  func keep(_ object: ObjectID) {
    guard isAlive, references[object] != nil else { return }
    references[object]! += 1
    kept[object, default: 0] += 1
  }

  func unkeep(_ object: ObjectID) {
    guard let count = kept[object] else { return }
    kept[object] = count > 1 ? count - 1 : nil
    remove(object)
  }

  private func remove(_ object: ObjectID) {
    guard isAlive, let count = references[object] else { return }
    references[object] = count > 1 ? count - 1 : nil
    world.detail("\(name) lets go of \(object): \(count - 1)")
    if count > 1 { return }
    known.remove(object)
    sure.remove(object)
    lenders[object] = nil
    times[object] = nil
    host?.release([object], by: self)
  }

  /// Puts an object; `nil` while there is no host.
  func put(_ object: ObjectID, containing contents: [ObjectID]) -> Bool {
    guard isAlive, let host, host.isAlive else { return false }
    references[object] = 1
    times[object] = world.number()
    sure.insert(object)
    world.detail("\(name) puts \(object) with \(contents)")
    // Of what it is not sure, it may not be sure inside either: nobody who has it may be known by the time.
    world.truth.contents[object] = Set(contents.filter { sure.contains($0) })
    host.made(object, contents, by: self)
    return true
  }

  /// Sends a reference: it is kept here until the head knows that the receiver has it.
  func pass(_ object: ObjectID, to other: SimulatedClient) {
    guard isAlive, references[object] != nil else { return }
    world.detail("\(name) passes \(object) to \(other.name)")
    if world.options.mutation != .senderLetsGoEarly { keep(object) }
    let lender = sure.contains(object) ? self : nil
    world.after(world.milliseconds(1...15)) {
      guard other.isAlive, self.isAlive else { return self.unkeep(object) }
      other.take(object, from: lender) { self.world.after(self.world.milliseconds(0...5)) { self.unkeep(object) } }
    }
  }

  func end() {
    guard isAlive else { return }
    isAlive = false
    machine.remove(self)
    host = nil
    // Whoever is the host by then sees it, whether the process came back or not.
    world.after(world.milliseconds(0...5)) { self.machine.host?.gone(self) }
    let waiting = waiting
    self.waiting = []
    (references, kept, times, sure, lenders) = ([:], [:], [:], [], [:])
    for waiter in waiting { waiter.then() }
    onEnd?()
    onEnd = nil
  }
}
