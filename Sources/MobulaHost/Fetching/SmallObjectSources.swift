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

  /// Takes objects from a host that has them, or is about to, and returns when each has come, or does not.
  ///
  /// - Parameter use: as of `SmallObjectsLane.take`.
  func take(
    _ objects: [ObjectID], from peer: TransferPeer,
    _ use: @escaping @Sendable (ObjectID, SmallObjectsLane.Answer) -> Void
  ) async {
    var objects = objects
    while !objects.isEmpty {
      let lane = lane(to: peer)
      objects = await withCheckedContinuation { continuation in
        let left = Mutex((count: objects.count, again: [ObjectID]()))
        lane.take(objects) { object, answer in
          // The connection has just ended, since nothing was wanted for a while.
          let isAgain = answer.isCancelled && self.lanes.withLock { $0[peer.host] } != nil
          if !isAgain { use(object, answer) }
          let again = left.withLock { left -> [ObjectID]? in
            left.count -= 1
            if isAgain { left.again.append(object) }
            return left.count == 0 ? left.again : nil
          }
          if let again { continuation.resume(returning: again) }
        }
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

extension SmallObjectsLane.Answer {
  fileprivate var isCancelled: Bool { if case .failure(let error) = self { error.code == .cancelled } else { false } }
}
