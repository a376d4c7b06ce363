public import Distributed
import MobulaCore
import MobulaWire

extension Cluster: DistributedActorSystem {
  public typealias ActorID = ActorAddress
  public typealias SerializationRequirement = Codable
  public typealias InvocationEncoder = CallEncoder
  public typealias InvocationDecoder = CallDecoder
  public typealias ResultHandler = CallResultHandler

  /// Starts an actor on a worker that has these resources; they are its own until `stop` or the end of the job.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when nobody has them within `ClusterOptions.leaseDeadline`; what its init throws.
  public func spawn<Act: RemoteActor>(
    _ type: Act.Type, with configuration: Act.Configuration, _ request: ResourceRequest = .resources()
  ) async throws -> Act {
    guard let name = _mangledTypeName(type) else {
      throw MobulaError(
        .invalidArgument, "\(type) has no name that a worker could find: declare it outside of functions.")
    }
    let encoded = try ArgumentCoding.encode(configuration)
    try await store.holds.flush()
    let grant = try await lease(request, within: options.leaseDeadline)
    do {
      let worker = try await workers.leasedConnection(to: grant)
      let address = try await worker.call(
        WorkerAPI.spawn, SpawnCall(type: name, configuration: encoded.bytes, lease: grant.lease),
        deadline: options.workDeadline)
      withExtendedLifetime(encoded.references) {}
      return try Act.resolve(id: address, using: self)
    } catch {
      let error = await explained(error, grant.lease)
      await giveBack(grant.lease, workerIsReusable: false)
      throw error
    }
  }

  /// Ends an actor that this process spawned, and gives its resources back.
  public func stop(_ actor: some RemoteActor) async {
    guard let lease = actor.id.lease else { return }
    if let worker = try? await workers.connection(to: actor.id.endpoint) {
      _ = try? await worker.call(WorkerAPI.stop, actor.id)
    }
    await giveBack(lease, workerIsReusable: false)
  }

  // MARK: - DistributedActorSystem

  public func resolve<Act: DistributedActor>(id: ActorAddress, as type: Act.Type) throws -> Act?
  where Act.ID == ActorAddress {
    guard id.endpoint == actors.endpoint else { return nil }
    guard let actor = actors[id.actor] else {
      throw MobulaError(.notFound, "The actor \(id) has ended.")
    }
    guard let actor = actor as? Act else {
      throw MobulaError(.mismatch, "The actor \(id) is not a \(type).")
    }
    return actor
  }

  public func assignID<Act: DistributedActor>(_ type: Act.Type) -> ActorAddress where Act.ID == ActorAddress {
    // An actor made in a driver has no address that others could reach.
    ActorAddress(
      actor: .random(), endpoint: actors.endpoint ?? .unix(path: "driver"), lease: SpawnContext.lease)
  }

  public func actorReady<Act: DistributedActor>(_ actor: Act) where Act.ID == ActorAddress {
    actors.add(actor, actor.id.actor)
  }

  public func resignID(_ id: ActorAddress) { actors.remove(id.actor) }

  public func makeInvocationEncoder() -> CallEncoder { CallEncoder() }

  public func remoteCall<Act: DistributedActor, Failure: Error, Value: Codable>(
    on actor: Act, target: RemoteCallTarget, invocation: inout CallEncoder, throwing: Failure.Type,
    returning: Value.Type
  ) async throws -> Value where Act.ID == ActorAddress {
    let (reply, worker) = try await call(actor.id, target, invocation)
    guard let bytes = reply.value else {
      throw MobulaError(.protocolViolation, "The actor \(actor.id) answered nothing where a \(returning) was due.")
    }
    let reader = ValueReader(cluster: self)
    let value = Result { try ArgumentCoding.decode(returning, from: bytes, reader: reader) }
    if let number = reply.reply {
      // What could not be decoded is not wanted either.
      if case .success = value { try await store.holds.flush() }
      await cleanUp { _ = try? await worker.call(WorkerAPI.received, ReplyReceived(reply: number)) }
    }
    return try value.get()
  }

  public func remoteCallVoid<Act: DistributedActor, Failure: Error>(
    on actor: Act, target: RemoteCallTarget, invocation: inout CallEncoder, throwing: Failure.Type
  ) async throws where Act.ID == ActorAddress {
    _ = try await call(actor.id, target, invocation)
  }

  private func call(
    _ address: ActorAddress, _ target: RemoteCallTarget, _ invocation: CallEncoder
  ) async throws -> (WorkReply, RPCConnection) {
    if !invocation.references.isEmpty { try await store.holds.flush() }
    let worker: RPCConnection
    do {
      worker = try await workers.connection(to: address.endpoint)
    } catch let error as MobulaError where error.code == .unavailable {
      throw MobulaError(.unavailable, "The actor \(address) is gone, or its host can't be reached: spawn it again.")
    }
    let call = ActorCall(
      actor: address.actor, target: target.identifier, substitutions: invocation.substitutions,
      arguments: invocation.arguments)
    defer { withExtendedLifetime(invocation.references) {} }
    do {
      return (try await worker.call(WorkerAPI.call, call, deadline: options.workDeadline), worker)
    } catch {
      throw await explained(error, address.lease)
    }
  }
}
