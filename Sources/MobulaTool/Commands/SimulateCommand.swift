import ArgumentParser
import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaSimulation
import MobulaSupervisor

struct SimulateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "simulate", abstract: "Predict how long an object takes to many hosts, on a simulated network.",
    discussion: """
      One host more, the maker, has the object, and all want it at the same instant. What they do is decided by the \
      same code as in a cluster; time, network and bytes are simulated. The same seed gives the same figures.

      Percentiles are over the hosts that neither died nor are slow; slow ones (a tenth of the rate) can't be faster \
      than their interface, and are reported apart.

      Examples:
        mobula simulate --hosts 100 --size 1GB --nic 10gbit
        mobula simulate --hosts 10000 --size 10GB --fault slow=1%,dead=1%
        mobula simulate --hosts 1000 --json out.json --svg out.svg
      """)

  @Option(help: "Hosts that want the object.") var hosts = 100
  @Option(help: "The object's size.") var size = "1GB"
  @Option(help: "The rate of every host's NIC, in both directions.") var nic = "10gbit"
  @Option(help: "What goes wrong: slow=SHARE and dead=SHARE, as in slow=1%,dead=0.5%.") var fault: String?
  @Option(help: "What chance decides follows from it.") var seed: UInt64 = 1
  @Option(help: "From one NIC to another, as in 100us or 2ms.") var latency = "100us"
  @Option(help: "The chunk size, a power of two as in 2MiB. Default: what the store would choose.") var chunk: String?
  @Option(help: "Write the figures to this file, as JSON.") var json: String?
  @Option(help: "Draw the share of complete hosts over time into this file, as SVG.") var svg: String?

  func validate() throws { _ = try options() }

  private func options() throws -> TransferSimulationOptions {
    guard 1...100_000 ~= hosts else { throw ValidationError("--hosts takes 1 to 100000.") }
    guard let size = ByteCount(size), 1...1_000_000_000_000 ~= size.bytes else {
      throw ValidationError("--size takes up to 1TB, as in 10GB.")
    }
    guard let nic = LinkRate(nic), nic.bitsPerSecond >= 1_000_000 else {
      throw ValidationError("--nic takes a rate of at least 1mbit, as in 840mbit or 10gbit.")
    }
    let geometry: ChunkGeometry
    do {
      if let chunk {
        guard let chunkSize = ByteCount(chunk) else { throw ValidationError("--chunk takes a size, as in 2MiB.") }
        geometry = try ChunkGeometry(objectSize: size.bytes, chunkSize: chunkSize.bytes)
      } else {
        geometry = try ChunkGeometry(objectSize: size.bytes)
      }
    } catch let error as MobulaError { throw ValidationError("--chunk: \(error.message)") }
    var options = TransferSimulationOptions(
      receivers: hosts, geometry: geometry, bandwidth: Double(nic.bitsPerSecond) / 8)
    options.seed = seed
    guard let latency = Self.duration(latency), .nanoseconds(1)...Duration.seconds(1) ~= latency else {
      throw ValidationError("--latency takes 1ns to 1s, as in 100us.")
    }
    options.costs.latency = latency
    let (slow, dead) = try shares()
    options.addFaults(slow: slow, dead: dead)
    return options
  }

  private func shares() throws -> (slow: Double, dead: Double) {
    var shares = (slow: 0.0, dead: 0.0)
    for part in fault?.split(separator: ",") ?? [] {
      let pair = part.split(separator: "=", maxSplits: 1)
      guard pair.count == 2, let share = Self.share(pair[1]), 0...1 ~= share, ["slow", "dead"].contains(pair[0]) else {
        throw ValidationError("--fault takes slow=SHARE and dead=SHARE, as in slow=1%,dead=1%, not \"\(part)\".")
      }
      if pair[0] == "slow" { shares.slow = share } else { shares.dead = share }
    }
    guard shares.slow + shares.dead <= 1 else { throw ValidationError("--fault: more than all hosts can't fail.") }
    return shares
  }

  private static func share(_ text: Substring) -> Double? {
    text.last == "%" ? decimalNumber(String(text.dropLast())).map { $0 / 100 } : decimalNumber(String(text))
  }

  private static func duration(_ text: String) -> Duration? {
    for (unit, nanoseconds) in [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)]
    where text.hasSuffix(unit) {
      guard let number = decimalNumber(String(text.dropLast(unit.count))), 0...1e12 ~= number * nanoseconds else {
        continue
      }
      return .nanoseconds(Int64(number * nanoseconds))
    }
    return nil
  }

  func run() async throws {
    try checkOutput(json)
    var simulation = TransferSimulation(try options())
    let began = ContinuousClock.now
    var told = began
    // SIGINT ends the process as it does by default: nothing is written before the end.
    while simulation.run(events: 1_000_000) {
      guard ContinuousClock.now - told > .seconds(5) else { continue }
      told = .now
      let seconds = (simulation.now / .milliseconds(10)).rounded() / 100
      let wall = Int((told - began) / .seconds(1))
      Log.write(2, "\(seconds) s simulated in \(wall) s; \(simulation.receiversWaiting) of \(hosts) hosts wait\n")
    }
    let report = TransferSimulationReport(simulation)
    if let json { try writeOutput(report.json, to: json) }
    if let svg { try writeOutput(Data(report.plot.utf8), to: svg) }
    print(report.table)
    let wall = ContinuousClock.now - began
    Log.write(2, "\(simulation.eventCount) events in \((wall / .milliseconds(100)).rounded() / 10) s\n")
    if let violation = simulation.violations.first {
      Log.error("The simulation met what must not happen, \(simulation.violations.count) times: \(violation)")
      throw ExitCode.failure
    }
  }
}
