import MobulaCore
import MobulaSimulation

extension PlannedCase {
  /// What the simulation of the transfer says of this case: seconds of the slowest loader that counts.
  ///
  /// Nothing in it is fitted to the measurement; what it assumes besides the rate is in `TransferCosts`.
  ///
  /// - Parameters:
  ///   - size: bytes of the model.
  ///   - bytesPerSecond: of payload, that an interface carries in each direction.
  /// - Returns: `nil` for what it doesn't simulate: S3, receivers that don't forward, several loaders on a host, and
  ///   objects that several hosts have at the beginning.
  func predictedSeconds(size: Int, bytesPerSecond: Double) -> Double? {
    guard kind == .replication(.relay), holders.isEmpty, !mayFail, bytesPerSecond > 0,
      Set(loaders.map(\.host)).subtracting([maker.host]).count == loaders.count,
      let geometry = try? ChunkGeometry(objectSize: size)
    else { return nil }
    var options = TransferSimulationOptions(
      receivers: loaders.count, geometry: geometry, bandwidth: bytesPerSecond)
    // A host that isn't among the loaders has no part in it.
    if let fault, let victim = loaders.firstIndex(where: { $0.host == fault.host }) {
      let delay = options.limit * fault.progress
      switch fault.kind {
      // Its connections end with the processes.
      case .killed: options.faults.append((delay, .kill(victim + 1, silently: false)))
      case .slow: options.faults.append((delay, .slow(victim + 1, by: 10)))
      }
    }
    var simulation = TransferSimulation(options)
    while simulation.run(events: 1_000_000) {}
    var slowest = 0.0
    for index in measured {
      guard let completion = simulation.completion(of: index + 1) else { return nil }
      slowest = max(slowest, completion / .seconds(1))
    }
    return slowest
  }
}
