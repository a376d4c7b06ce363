import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaTransfer

@Suite struct TransferSimulationTests {
  /// Bytes a second of every interface.
  private let bandwidth = 100e6

  @Test(arguments: [1, 2, 5]) func aChainTakesAboutAsLongAsOneReceiver(receivers: Int) throws {
    let geometry = try ChunkGeometry(objectSize: 128 * 1_048_576)
    var simulation = TransferSimulation(seed: 1, receivers: receivers, geometry: geometry, bandwidth: bandwidth)
    try simulation.run()
    let limit = Duration.seconds(Double(geometry.objectSize) / bandwidth)
    for receiver in 1...receivers {
      let seconds = try #require(simulation.hosts[receiver].completed)
      #expect(seconds >= limit)
      #expect(seconds / limit <= 1.1)
    }
  }

  @Test(arguments: 0..<40) func everyInterfaceSendsAboutOnceTheObject(seed: UInt64) throws {
    let geometry = try ChunkGeometry(objectSize: 64 * 65_536 - 1, chunkSize: 65_536)
    let receivers = Int(seed) + 1
    var simulation = TransferSimulation(seed: seed, receivers: receivers, geometry: geometry, bandwidth: bandwidth)
    try simulation.run()
    for host in 0...receivers {
      #expect(simulation.hosts[host].map.isComplete, "seed \(seed), host \(host)")
      let expected = host < receivers ? geometry.objectSize : 0
      let sent = simulation.bytesSent(by: host)
      #expect(sent >= expected && sent <= expected + geometry.objectSize / 50, "seed \(seed), host \(host)")
      #expect(simulation.hosts[host].failures == 0, "seed \(seed), host \(host)")
    }
  }

  /// What the seed decides: how many receivers, and what goes wrong when.
  private func faults(_ generator: inout SeededGenerator, receivers: Int) -> [(Duration, TransferSimulation.Fault)] {
    (0..<Int.random(in: 1...4, using: &generator)).map { _ in
      let delay = Duration.microseconds(Int.random(in: 0...60_000, using: &generator))
      let victim = Int.random(in: 1...receivers, using: &generator)
      let fault: TransferSimulation.Fault =
        switch Int.random(in: 0..<5, using: &generator) {
        case 0, 1: .kill(victim, silently: Bool.random(using: &generator))
        case 2: .slow(victim, by: Double.random(in: 1...20, using: &generator))
        case 3: .cut(victim, Int.random(in: 1...receivers, using: &generator))
        default: .corruptNext(victim)
        }
      return (delay, fault)
    }
  }

  private func simulate(seed: UInt64) throws -> TransferSimulation {
    var generator = SeededGenerator(seed: seed)
    let receivers = Int.random(in: 1...40, using: &generator)
    let geometry = try ChunkGeometry(objectSize: 24 * 65_536 - 1, chunkSize: 65_536)
    var simulation = TransferSimulation(
      seed: seed, receivers: receivers, geometry: geometry, bandwidth: bandwidth,
      faults: faults(&generator, receivers: receivers))
    try simulation.run()
    return simulation
  }

  @Test func whateverHappensEveryLivingReceiverEndsComplete() {
    var failures = 0
    for seed in UInt64(0)..<250 {
      do {
        let simulation = try simulate(seed: seed)
        for (number, host) in simulation.hosts.enumerated() where number > 0 && simulation.isAlive(number) {
          #expect(host.map.isComplete, "seed \(seed), host \(number)")
          // Nothing verified was fetched again, after however many sources.
          #expect(host.arrivedChunks == host.map.count + host.rejectedChunks, "seed \(seed), host \(number)")
          failures += host.failures
        }
      } catch {
        Issue.record("seed \(seed): \(error)")
      }
    }
    // The faults must have been met, or this test shows nothing.
    #expect(failures > 100)
  }

  @Test func aSeedRepeatsItself() throws {
    let one = try simulate(seed: 7), two = try simulate(seed: 7)
    #expect(one.hosts.map(\.completed) == two.hosts.map(\.completed))
    #expect(one.network.now == two.network.now)
  }

  @Test(arguments: [false, true]) func aHostKilledInTheMiddleIsSteppedOver(silently: Bool) throws {
    let geometry = try ChunkGeometry(objectSize: 64 * 1_048_576)
    // Halfway through 0.67 s.
    var simulation = TransferSimulation(
      seed: 3, receivers: 5, geometry: geometry, bandwidth: bandwidth,
      faults: [(.milliseconds(330), .kill(3, silently: silently))])
    try simulation.run()
    for receiver in [1, 2, 4, 5] {
      #expect(simulation.hosts[receiver].map.isComplete)
      #expect(simulation.hosts[receiver].arrivedChunks == geometry.count)
    }
    #expect(simulation.hosts[4].failures == 1)
    #expect(!simulation.hosts[3].map.isComplete)
    // Host 2 served the half that host 3 had, and the half that host 4 lacked.
    #expect(simulation.bytesSent(by: 2) < geometry.objectSize * 5 / 4)
  }
}
