import MobulaCore
import MobulaTransfer
import MobulaWire
import Synchronization

/// The hosts that small objects are taken from, each over one connection.
final class SmallObjectSources: Sendable {
  private let configuration: HostConfiguration
  private let traffic: TrafficControl
  private let lanes = Mutex<[HostID: SmallObjectsLane]>([:])

  /// - Parameter traffic: what this host receives.
  init(_ configuration: HostConfiguration, traffic: TrafficControl) {
    self.configuration = configuration
    self.traffic = traffic
  }

  /// Takes an object from a host that has it, or is about to.
  ///
  /// - Throws: as `SmallObjectsLane.take`.
  func take(
    _ object: ObjectID, from peer: TransferPeer, _ use: @escaping @Sendable (SmallObjects.Arrival) throws -> Void
  ) async throws {
    while true {
      let lane = lane(to: peer)
      do {
        return try await lane.take(object, use)
      } catch let error as MobulaError {
        // It has just ended, since nothing was wanted for a while.
        if error.code == .cancelled, lanes.withLock({ $0[peer.host] }) != nil { continue }
        throw error
      }
    }
  }

  private func lane(to peer: TransferPeer) -> SmallObjectsLane {
    lanes.withLock { lanes in
      if let lane = lanes[peer.host], !lane.isOver { return lane }
      // Those that have ended are not kept either.
      lanes = lanes.filter { !$0.value.isOver }
      let lane = SmallObjectsLane(
        to: peer, token: configuration.token, tls: configuration.tls, hello: configuration.hello, traffic: traffic)
      lanes[peer.host] = lane
      return lane
    }
  }

  func close() {
    let open = lanes.withLock { lanes in
      defer { lanes = [:] }
      return Array(lanes.values)
    }
    for lane in open { lane.close() }
  }
}
