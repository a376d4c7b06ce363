public import Distributed
import MobulaCore
import MobulaWire

extension Cluster: DistributedActorSystem {
  public typealias ActorID = ActorAddress
  public typealias SerializationRequirement = Codable
  public typealias InvocationEncoder = CallEncoder
  public typealias InvocationDecoder = CallDecoder
  public typealias ResultHandler = CallResultHandler

  /// Starts an actor on a worker that has what it needs; that is its own until `stop` or the end of the job.
  ///
  /// - Parameters:
  ///   - type: the actor's.
  ///   - configuration: what it is made with.
  ///   - options: those of the type, unless told otherwise.
  /// - Throws: `MobulaError`: `unschedulable` when nobody has it within `ActorOptions.startLimit`, `workFailed` with what
  ///   its `init` throws.
  public func spawn<Act: RemoteActor>(
    _ type: Act.Type = Act.self, with configuration: Act.Configuration, _ options: ActorOptions = Act.options
  ) async throws -> Act {
    try TaskOptions.check(options.resources)
    try ClusterOptions.check(options.environment)
    return try await RunningWork.waiting { try await start(type, with: configuration, options) }
  }

  private func start<Act: RemoteActor>(
    _ type: Act.Type, with configuration: Act.Configuration, _ options: ActorOptions
  ) async throws -> Act {
    guard let name = _mangledTypeName(type) else {
      throw MobulaError(
        .invalidArgument, "\(type) has no name that a worker could find: declare it outside of functions.")
    }
    let encoded = try ArgumentCoding.encode(configuration)
    try await store.holds.flush()
    let grant = try await lease(options)
    do {
      let worker = try await workers.leasedConnection(to: grant)
      let address = try await worker.call(
        WorkerAPI.spawn, SpawnCall(type: name, configuration: encoded.bytes, lease: grant.lease),
        deadline: self.options.workDeadline ?? .untilItComes)
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
    let (reply, worker) = try await RunningWork.waiting { [invocation] in
      try await call(actor.id, target, invocation)
    }
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
    _ = try await RunningWork.waiting { [invocation] in try await call(actor.id, target, invocation) }
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
      let reply = try await worker.call(WorkerAPI.call, call, deadline: options.workDeadline ?? .untilItComes)
      guard let bytes = reply.error else { return (reply, worker) }
      let error = try CBORDecoder().decode(WorkError.self, from: bytes.bytes)
      // As it was thrown, where that can be: a call of an actor that is here throws that, too.
      throw error.decoded() ?? error
    } catch let error as MobulaError where error.code == .connectionClosed {
      throw await explained(error, address.lease)
    }
  }
}
