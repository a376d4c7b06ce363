internal import MobulaCore
internal import MobulaWire

/// Sends small objects to one receiver, in the order in which they are there, on the thread that calls `run`.
struct SmallObjectsSender {
  /// What this host has of an object.
  enum Presence {
    case here(any ChunkSource)
    case coming
    case unknown
  }

  private struct Wanted {
    let object: ObjectID
    let since: ContinuousClock.Instant
  }

  /// How often is looked for what is on its way.
  private static let glance = Duration.milliseconds(3)

  private let socket: TransferSocket
  private let gate: SendGate
  private let timeouts: TransferTimeouts
  private let traffic: TrafficFlow
  private let presence: (ObjectID) -> Presence
  private let count: (Int) -> Void
  private var wanted: [Wanted] = []
  /// What left and was not acknowledged: the kernel has references to its pages. In the order of leaving.
  private var leaving: [any ChunkSource] = []
  private var spoke = ContinuousClock.now
  private var heard = ContinuousClock.now

  init(
    _ socket: TransferSocket, gate: SendGate, timeouts: TransferTimeouts, traffic: TrafficFlow,
    presence: @escaping (ObjectID) -> Presence, count: @escaping (Int) -> Void
  ) {
    self.socket = socket
    self.gate = gate
    self.timeouts = timeouts
    self.traffic = traffic
    self.presence = presence
    self.count = count
  }

  /// Returns when the receiver is done, or asks for nothing for long. Then the connection is destroyed, and only after
  /// that the objects are released that may still be leaving.
  mutating func run() throws(MobulaError) {
    defer {
      traffic.close()
      if leaving.isEmpty { socket.close() } else { socket.abort() }
    }
    var hasSent = false
    while true {
      let wait = wanted.isEmpty ? timeouts.idle : hasSent ? .zero : Self.glance
      var isReadable = try socket.waitUntilReadable(wait)
      // Nothing more is wanted, or who wants it acknowledges nothing.
      if !isReadable, wanted.isEmpty || ContinuousClock.now - heard > timeouts.idle { return }
      if isReadable { heard = .now }
      while isReadable {
        guard try takeIn() else { return }
        isReadable = try socket.waitUntilReadable(.zero)
      }
      hasSent = try sendWhatIsHere()
      if !hasSent, ContinuousClock.now - spoke > timeouts.keepalive { try say(.alive) }
    }
  }

  /// - Returns: false when the receiver is done.
  private mutating func takeIn() throws(MobulaError) -> Bool {
    switch try socket.receiveMessage(Patience(stall: timeouts.idle)) {
    case .want(let object):
      guard wanted.count + leaving.count < SmallObjects.mostWanted else {
        throw MobulaError(.protocolViolation, "\(socket.peer) asked for too many objects at once: run one version.")
      }
      wanted.append(Wanted(object: object, since: .now))
      return true
    case .acknowledge(let count):
      guard 0...leaving.count ~= count else {
        throw MobulaError(.protocolViolation, "\(socket.peer) acknowledged what was not sent: run one version.")
      }
      leaving.removeFirst(count)
      return true
    case .alive: return true
    default: return false
    }
  }

  private mutating func sendWhatIsHere() throws(MobulaError) -> Bool {
    var left: [Wanted] = []
    var hasSent = false
    for (index, one) in wanted.enumerated() {
      let waited = ContinuousClock.now - one.since
      switch presence(one.object) {
      case .here(let source):
        try send(source)
        hasSent = true
        // What was asked for meanwhile, and what was acknowledged, is not to wait for all of these.
        if try socket.waitUntilReadable(.zero) {
          wanted = left + wanted[(index + 1)...]
          return true
        }
      case .coming where waited < SmallObjects.patience, .unknown where waited < SmallObjects.patienceWithUnknown:
        left.append(one)
      case .coming, .unknown: try say(.absent(one.object))
      }
    }
    wanted = left
    return hasSent
  }

  private mutating func send(_ source: any ChunkSource) throws(MobulaError) {
    let geometry = source.geometry
    guard SmallObjects.admits(objectSize: geometry.objectSize, chunkSize: geometry.chunkSize) else {
      return try say(.absent(source.object))
    }
    while try !isAdmitted(geometry.objectSize) {}
    // Held before a byte of it leaves.
    leaving.append(source)
    _ = try gate.pass { () throws(MobulaError) in
      let checksums = (0..<geometry.count).map { source.checksum(of: $0) }
      try socket.send(
        .whole(
          source.object, objectSize: geometry.objectSize, chunkSize: geometry.chunkSize, checksums: checksums),
        more: true)
      try socket.sendFile(source.descriptor, offset: source.offset, count: geometry.objectSize, progress: count)
      return geometry.objectSize
    }
    spoke = .now
  }

  private mutating func say(_ message: TransferMessage) throws(MobulaError) {
    try socket.send(message)
    spoke = .now
  }

  private mutating func isAdmitted(_ bytes: Int) throws(MobulaError) -> Bool {
    var left = bytes
    while left > 0 {
      let piece = min(left, traffic.piece)
      switch traffic.wait(piece, continues: left < bytes, upTo: timeouts.keepalive) {
      case .admitted: left -= piece
      case .timeout: try say(.alive)
      case .closed: throw MobulaError(.connectionClosed, "The connection to \(socket.peer) has ended.")
      }
    }
    return true
  }
}
