import MobulaCore

/// A machine with a host's directory: the store's memory and the processes on it.
final class SimulatedMachine {
  struct Replica {
    var contents: [ObjectID]
    var isPrimary: Bool
  }

  let index: Int
  let hostID: HostID
  let podID: PodID
  unowned let world: ClusterSimulation
  private(set) var isUp = true
  private(set) var isPartitioned = false
  /// The store's memory, which outlives the host's process.
  var store: [ObjectID: Replica] = [:]
  var host: SimulatedHost?
  var pod: SimulatedPod?
  /// Drivers and workers, in the order of their start.
  var clients: [SimulatedClient] = []
  /// A process with a copy of the host's directory, on another machine.
  var clone: SimulatedHost? { didSet { if let clone { copies.insert(clone.nonce) } } }
  /// All processes that ever were started with a copy of it.
  private(set) var copies: Set<ProcessNonce> = []

  init(_ index: Int, in world: ClusterSimulation) {
    self.index = index
    self.world = world
    hostID = HostID(high: 0x1057, low: UInt64(index + 1))
    podID = PodID(high: 0x90D, low: UInt64(index + 1))
  }

  var name: String { "m\(index + 1)" }

  func boot() {
    isUp = true
    startHost()
    startPod()
  }

  func startHost() {
    guard isUp, host == nil else { return }
    host = SimulatedHost(on: self, isClone: false)
    host?.connect()
    for client in clients { client.attachSoon() }
  }

  func startPod() {
    guard isUp, pod == nil else { return }
    pod = SimulatedPod(on: self)
    pod?.connect()
  }

  // MARK: What goes wrong

  func setPartitioned(_ isPartitioned: Bool) {
    self.isPartitioned = isPartitioned
    world.note("\(name) \(isPartitioned ? "is cut off" : "is reached again")")
    let links = world.links.filter { $0.machine === self }
    if isPartitioned {
      // Each side finds out by its own silence.
      for link in links {
        world.after(world.milliseconds(300...1500)) { if self.isPartitioned, !link.isCut { link.cut() } }
      }
    } else {
      for link in links { link.release() }
    }
  }

  func crashHost() {
    guard let host else { return }
    world.note("\(name): the host's process ends")
    host.end()
    self.host = nil
    for client in clients { client.hostIsGone() }
  }

  func crashPod() {
    guard let pod else { return }
    world.note("\(name): the pod ends")
    self.pod = nil
    pod.end()
  }

  func crash() {
    world.note("\(name): the machine ends")
    isUp = false
    crashHost()
    crashPod()
    for client in clients { client.end() }
    store = [:]
  }

  func remove(_ client: SimulatedClient) { clients.removeAll { $0 === client } }
}
