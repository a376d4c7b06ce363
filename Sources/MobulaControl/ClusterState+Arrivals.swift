package import MobulaCore

extension ClusterState {
  /// Takes the first part of a host's registration, or all of it.
  package mutating func register(_ id: RequestID, _ registration: HostRegistration, on connection: ConnectionID) {
    // One that it began before on this connection, and did not end, it gave up.
    arriving[connection] = nil
    guard registration.more == true else {
      return decide(id) { state throws(MobulaError) in try state.registered(id, registration, on: connection) }
    }
    watch(connection)
    arriving[connection] = registration
    answer(id, .registration(RegistrationReply(cluster: settings.cluster, epoch: settings.epoch)))
  }

  /// Takes another part; with the last the host is registered.
  package mutating func registerMore(_ id: RequestID, _ part: RegistrationPart, on connection: ConnectionID) {
    decide(id) { state throws(MobulaError) in
      guard var registration = state.arriving.removeValue(forKey: connection), registration.host == part.host else {
        throw MobulaError(
          .protocolViolation,
          "Host \(state.hostName(part.host)) goes on with a registration that it did not begin: begin anew.")
      }
      registration.add(part)
      guard registration.more == true else { return try state.registered(id, registration, on: connection) }
      state.arriving[connection] = registration
      state.answer(
        id, .registration(RegistrationReply(cluster: state.settings.cluster, epoch: state.settings.epoch)))
    }
  }
}
