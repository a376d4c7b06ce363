package import MobulaCore
package import MobulaTransfer

/// What a simulated transfer is like: one host, the maker, has an object, and all others want it at the same instant.
package struct TransferSimulationOptions: Sendable {
  /// A host is a number: the maker is 0, receivers follow from 1.
  package enum Fault: Hashable, Sendable {
    /// The process dies and its connections end, or the power fails and nobody hears of it.
    case kill(Int, silently: Bool)
    /// What the interface carries is divided by the factor.
    case slow(Int, by: Double)
    /// The two don't reach each other any more.
    case cut(Int, Int)
    /// The next chunk that the host sends is damaged.
    case corruptNext(Int)
  }

  /// Hosts that want the object.
  package var receivers: Int
  package var geometry: ChunkGeometry
  /// Bytes a second that an interface carries in each direction, headers of the network taken off.
  package var bandwidth: Double
  package var seed: UInt64 = 1
  package var costs = TransferCosts()
  package var limits = ExchangeLimits()
  package var faults: [(delay: Duration, fault: Fault)] = []
  /// Virtual time after which the simulation ends, whatever is missing.
  package var deadline = Duration.seconds(600)

  package init(receivers: Int, geometry: ChunkGeometry, bandwidth: Double) {
    self.receivers = receivers
    self.geometry = geometry
    self.bandwidth = bandwidth
  }

  /// The least time in which one receiver can have the object.
  package var limit: Duration { .seconds(Double(geometry.objectSize) / bandwidth) }

  /// Makes so many parts of the receivers slow (a tenth of the bandwidth, from the start), and lets so many others die
  /// without a word, each at some time before the first could be complete.
  package mutating func addFaults(slow: Double, dead: Double) {
    var generator = SeededGenerator(seed: seed ^ 0xFA17)
    var victims = Array(1...receivers)
    victims.shuffle(using: &generator)
    let slowCount = Int((Double(receivers) * slow).rounded())
    let deadCount = min(receivers - slowCount, Int((Double(receivers) * dead).rounded()))
    for victim in victims.prefix(slowCount) { faults.append((.zero, .slow(victim, by: 10))) }
    for victim in victims.dropFirst(slowCount).prefix(deadCount) {
      faults.append((limit * Double.random(in: 0..<1, using: &generator), .kill(victim, silently: true)))
    }
  }
}

/// What things take besides the bytes, to be set to what was measured.
package struct TransferCosts: Sendable {
  /// From one interface to another.
  package var latency = Duration.microseconds(100)
  /// Until a message is read and answered: threads that wake.
  package var message = Duration.microseconds(50)
  /// Round trips until a connection is there and both sides have authenticated.
  package var connectRoundTrips = 4
  /// For each chunk, from its last byte to the next: claiming it, committing it, telling others.
  package var chunk = Duration.microseconds(100)
  /// Bytes a second of the checksum of the piece that came last; the others were checked while bytes arrived.
  package var verification = 5e9
  package var verifiedAtOnce = 262_144
  /// That the head computes for each message, one after the other.
  package var headMessage = Duration.microseconds(20)
  /// Bytes that an interface carries for one connection before it turns to the next. Default: a quarter of a chunk.
  package var piece: Int?
  /// How long the head waits for a host that is silent.
  package var hostTimeout = Duration.seconds(10)
  /// How long a receiver goes on with a source that is silent.
  package var stall = Duration.seconds(10)
  /// How long a source goes on with a receiver that is silent.
  package var idle = Duration.seconds(30)

  package init() {}
}
