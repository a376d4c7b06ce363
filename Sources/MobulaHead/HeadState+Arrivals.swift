internal import MobulaCore
internal import MobulaWire

extension HeadState {
  /// Takes the first part of a registration, or all of it.
  mutating func arrived(
    _ registration: HostRegistration, on connection: RPCConnection, _ answer: @escaping Answer<RegistrationReply>
  ) throws(MobulaError) {
    // One that it began before on this connection, and did not end, it gave up.
    arriving[ConnectionID(connection.id)] = nil
    guard registration.more == true else { return try register(registration, on: connection, answer) }
    watch(connection)
    arriving[ConnectionID(connection.id)] = registration
    answer(&self, .success(RegistrationReply(cluster: configuration.cluster, epoch: configuration.epoch)))
  }

  /// Takes another part; with the last the host is registered.
  mutating func arrived(
    _ part: RegistrationPart, on connection: RPCConnection, _ answer: @escaping Answer<RegistrationReply>
  ) throws(MobulaError) {
    let id = ConnectionID(connection.id)
    guard var registration = arriving.removeValue(forKey: id), registration.host == part.host else {
      throw MobulaError(
        .protocolViolation, "Host \(hostName(part.host)) goes on with a registration that it did not begin: begin anew."
      )
    }
    registration.add(part)
    guard registration.more == true else { return try register(registration, on: connection, answer) }
    arriving[id] = registration
    answer(&self, .success(RegistrationReply(cluster: configuration.cluster, epoch: configuration.epoch)))
  }
}
