import MobulaCore
import MobulaSimulation
import MobulaTestKit
import Testing

@testable import MobulaTransfer

@Suite struct TransferSimulationTests {
  /// What the seed decides: how many receivers, and what goes wrong when.
  private func options(seed: UInt64) throws -> TransferSimulationOptions {
    var generator = SeededGenerator(seed: seed)
    let receivers = Int.random(in: 1...20, using: &generator)
    let geometry = try ChunkGeometry(objectSize: 24 * 65_536 - 1, chunkSize: 65_536)
    var options = TransferSimulationOptions(receivers: receivers, geometry: geometry, bandwidth: 100e6)
    options.seed = seed
    for _ in 0..<Int.random(in: 0...4, using: &generator) {
      let delay = Duration.microseconds(Int.random(in: 0...40_000, using: &generator))
      let victim = Int.random(in: 1...receivers, using: &generator)
      let fault: TransferSimulationOptions.Fault =
        switch Int.random(in: 0..<5, using: &generator) {
        case 0, 1: .kill(victim, silently: Bool.random(using: &generator))
        case 2: .slow(victim, by: Double.random(in: 1...20, using: &generator))
        case 3: .cut(victim, Int.random(in: 1...receivers, using: &generator))
        default: .corruptNext(victim)
        }
      options.faults.append((delay, fault))
    }
    return options
  }

  private func simulate(_ options: TransferSimulationOptions) -> TransferSimulation {
    var simulation = TransferSimulation(options)
    _ = simulation.run()
    return simulation
  }

  @Test(arguments: 0..<10) func whateverHappensEveryLivingReceiverEndsComplete(hundred: UInt64) throws {
    for seed in hundred * 100..<(hundred + 1) * 100 {
      let options = try options(seed: seed)
      let simulation = simulate(options)
      try #require(simulation.violations.isEmpty, "seed \(seed): \(simulation.violations)")
      for receiver in 1...options.receivers where simulation.isAlive(receiver) {
        try #require(
          simulation.isComplete(receiver) && simulation.completion(of: receiver) != nil,
          "seed \(seed), host \(receiver) lacks \(simulation.chunksMissing(at: receiver)) chunks: \(String(describing: simulation.failure(of: receiver)))"
        )
        // Nothing verified was fetched again, after however many sources.
        try #require(simulation.commits(at: receiver) == options.geometry.count, "seed \(seed), host \(receiver)")
      }
    }
  }

  @Test(arguments: 0..<20) func whenTheMakerLeavesEverybodyIsCompleteOrIsTold(seed: UInt64) throws {
    var options = try options(seed: seed)
    let part = Double(seed % 10) / 8
    options.faults = [(options.limit * part, .kill(0, silently: seed % 2 == 0))]
    let simulation = simulate(options)
    #expect(simulation.violations.isEmpty, "seed \(seed): \(simulation.violations)")
    for receiver in 1...options.receivers {
      let error = simulation.failure(of: receiver)
      #expect(simulation.isComplete(receiver) != (error != nil), "seed \(seed), host \(receiver)")
    }
  }

  @Test func aSeedRepeatsItself() throws {
    for seed in UInt64(0)..<20 {
      let options = try options(seed: seed)
      let one = simulate(options), two = simulate(options)
      #expect(one.eventCount == two.eventCount && one.now == two.now, "seed \(seed)")
    }
  }

  /// What was measured with emulated hosts of this rate: 1.00 to 1.03 × the limit.
  @Test(arguments: [1, 2, 3, 4, 5, 24]) func severalTakeAboutAsLongAsOne(receivers: Int) throws {
    let geometry = try ChunkGeometry(objectSize: 564_000_000)
    let options = TransferSimulationOptions(receivers: receivers, geometry: geometry, bandwidth: 100.4e6)
    let simulation = simulate(options)
    let report = TransferSimulationReport(simulation)
    let last = try #require(report.percentile(1))
    #expect(last >= report.limit)
    #expect(last <= report.limit * (receivers <= 5 ? 1.03 : 1.10))
    // The maker's interface carries each byte about once.
    #expect(Double(report.bytesFromMaker) <= Double(report.size) * (receivers <= 5 ? 1.03 : 1.10))
  }

  @Test func theHeadIsAskedAsOftenByManyAsByFew() throws {
    var messages: [Double] = []
    for receivers in [20, 100, 500] {
      let geometry = try ChunkGeometry(objectSize: 64 * 262_144, chunkSize: 262_144)
      let options = TransferSimulationOptions(receivers: receivers, geometry: geometry, bandwidth: 1e9)
      messages.append(TransferSimulationReport(simulate(options)).headMessagesPerHost)
    }
    #expect(messages.max()! <= 25)
    #expect(messages[2] <= messages[1] * 1.25)
  }
}
