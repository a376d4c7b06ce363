public import Distributed
import MobulaCore
import MobulaWire
import Synchronization

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
        WorkerAPI.spawn,
        SpawnCall(
          type: name, configuration: encoded.bytes, lease: grant.lease, limit: options.concurrency.limit),
        deadline: self.options.workDeadline ?? .untilItComes)
      withExtendedLifetime(encoded.references) {}
      return try Act.resolve(id: address, using: self)
    } catch {
      let error = await explained(error, grant.lease)
      await giveBack(grant.lease, workerIsReusable: false)
      throw error
    }
  }

  /// Starts so many actors alike, at the same time.
  ///
  /// - Throws: as for one; then those that were started have been stopped. `MobulaError` (`invalidArgument`) for fewer
  ///   than none.
  public func spawn<Act: RemoteActor>(
    _ type: Act.Type = Act.self, count: Int, with configuration: Act.Configuration,
    _ options: ActorOptions = Act.options
  ) async throws -> [Act] {
    guard count >= 0 else { throw MobulaError(.invalidArgument, "\(count) actors can't be started: give 0 or more.") }
    return try await withThrowingTaskGroup(of: Act.self) { group in
      for _ in 0..<count { group.addTask { try await self.spawn(type, with: configuration, options) } }
      var actors: [Act] = []
      var failure: (any Error)?
      while let result = await group.nextResult() {
        switch result {
        case .success(let actor): actors.append(actor)
        case .failure(let error): failure = failure ?? error
        }
      }
      guard let failure else { return actors }
      for actor in actors { await stop(actor) }
      throw failure
    }
  }

  /// Has an actor for as long as `body` runs.
  ///
  /// - Throws: as `spawn`; what `body` throws.
  public func withActor<Act: RemoteActor, Value>(
    _ type: Act.Type = Act.self, with configuration: Act.Configuration, _ options: ActorOptions = Act.options,
    _ body: (Act) async throws -> Value
  ) async throws -> Value {
    let actor = try await spawn(type, with: configuration, options)
    do {
      let value = try await body(actor)
      await stop(actor)
      return value
    } catch {
      await stop(actor)
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
    guard id.endpoint == actors.endpoint ?? ActorAddress.driver else { return nil }
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
      actor: .random(), endpoint: actors.endpoint ?? ActorAddress.driver, lease: SpawnContext.lease)
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
    let reply = try await reply(of: actor.id, target, invocation)
    do {
      switch reply.outcome {
      case .inline(let bytes), .failed(let bytes):
        return try StoredValue(reading: bytes).decode(returning, reader: ValueReader(cluster: self))
      case .stored:
        guard let held = reply.held else {
          throw MobulaError(.protocolViolation, "The actor \(actor.id) stored a result that nobody holds.")
        }
        let pinned = try await store.pin(held.object, sources: .relay, deadline: .untilItComes)
        return try decode(returning, from: pinned, of: held)
      }
    } catch let error as WorkError {
      // As it was thrown, where that can be: a call of an actor that is here throws that, too.
      throw error.decoded() ?? error
    }
  }

  public func remoteCallVoid<Act: DistributedActor, Failure: Error>(
    on actor: Act, target: RemoteCallTarget, invocation: inout CallEncoder, throwing: Failure.Type
  ) async throws where Act.ID == ActorAddress {
    guard case .failed(let bytes) = try await reply(of: actor.id, target, invocation).outcome,
      let error = StoredFailure.of(bytes)
    else { return }
    throw (error as? WorkError)?.decoded() ?? error
  }

  private func reply(
    of address: ActorAddress, _ target: RemoteCallTarget, _ invocation: CallEncoder
  ) async throws -> ActorCalls.Reply {
    if let recorder = CallRecorder.current, recorder.actor == address {
      recorder.record(address, target.identifier, invocation)
      throw CallRecorder.Recorded()
    }
    let options = Call.options
    var attempt = 0
    while true {
      do {
        return try await RunningWork.waiting {
          try await calls.call(
            address, target.identifier, invocation, result: .random(job: job),
            within: options?.timeout ?? self.options.workDeadline)
        }
      } catch let error as MobulaError
        where [.connectionClosed, .unavailable].contains(error.code) && attempt < options?.retries ?? 0
      {
        attempt += 1
        try await Task.sleep(for: .milliseconds(100) * (1 << min(attempt, 6)))
      }
    }
  }
}

/// Notes down a call instead of making it.
final class CallRecorder: Sendable {
  struct Recorded: Error {}

  @TaskLocal static var current: CallRecorder?

  /// Whose calls are noted; others are made.
  let actor: ActorAddress

  init(_ actor: ActorAddress) { self.actor = actor }

  private let call = Mutex<(address: ActorAddress, target: String, invocation: CallEncoder)?>(nil)

  func record(_ address: ActorAddress, _ target: String, _ invocation: CallEncoder) {
    call.withLock { $0 = (address, target, invocation) }
  }

  var recorded: (address: ActorAddress, target: String, invocation: CallEncoder)? { call.withLock { $0 } }
}

extension RemoteActor {
  /// Calls the actor, and returns at once; the reference's `value` waits for what comes of it.
  ///
  /// Calls that one process makes so to one actor begin in their order. In the actor's own process the call is made before
  /// this returns.
  /// - Parameter call: one call of the actor, as in `{ try await $0.add(3) }`.
  /// - Throws: `MobulaError` (`full`) beyond `ClusterOptions.queueLimit`; what encoding the arguments throws.
  @discardableResult
  nonisolated public func submit<Value: Codable & Sendable>(
    _ call: (Self) async throws -> Value
  ) async throws -> ObjectRef<Value> {
    // An actor of this process is called at once, and what it calls itself is not meant.
    let recorder = actorSystem.isHere(id) ? nil : CallRecorder(id)
    let result: Result<Value, any Error>
    do {
      result = .success(try await CallRecorder.$current.withValue(recorder) { try await call(self) })
    } catch {
      result = .failure(error)
    }
    return try actorSystem.submitted(recorder, result)
  }

  /// Calls the actor, and returns at once; the reference's `value` waits for its end.
  ///
  /// - Parameter call: one call of the actor, as in `{ try await $0.reset() }`.
  /// - Throws: as for calls with a result.
  @discardableResult
  nonisolated public func submit(_ call: (Self) async throws -> Void) async throws -> ObjectRef<Done> {
    // An actor of this process is called at once, and what it calls itself is not meant.
    let recorder = actorSystem.isHere(id) ? nil : CallRecorder(id)
    let result: Result<Done, any Error>
    do {
      try await CallRecorder.$current.withValue(recorder) { try await call(self) }
      result = .success(Done())
    } catch {
      result = .failure(error)
    }
    return try actorSystem.submitted(recorder, result)
  }
}

extension Cluster {
  fileprivate func isHere(_ id: ActorAddress) -> Bool { id.endpoint == actors.endpoint ?? ActorAddress.driver }

  fileprivate func submitted<Value: Codable & Sendable>(
    _ recorder: CallRecorder?, _ result: Result<Value, any Error>
  ) throws -> ObjectRef<Value> {
    let object = ObjectID.random(job: job)
    func record(_ target: String, _ references: [AnyReference]) -> AnyReference {
      self.references.reference(to: object) { number in
        AnyReference(
          object, cluster: self, number: number, isShared: false,
          task: TaskRecord(object, number: number, type: target, arguments: (ByteString([]), references), isCall: true))
      }
    }
    guard let call = recorder?.recorded else {
      // The arguments could not be encoded, or nothing was called.
      let value = try result.get()
      guard recorder == nil else {
        throw MobulaError(
          .invalidArgument, "submit takes one call of the actor, as in { try await $0.add(3) }: nothing was called.")
      }
      let reference = record("", [])
      reference.task?.finish(.inline(InlineObject(try EncodedValue(value))), holds: store.holds) { [weak self] in
        await self?.make($0, $1)
      }
      return ObjectRef(reference)
    }
    let reference = record(call.target, call.invocation.references)
    try calls.submit(call.address, call.target, call.invocation, reference.task!)
    return ObjectRef(reference)
  }
}

/// How calls of actors are made.
public struct CallOptions: Sendable {
  var timeout: Duration?
  var retries = 0

  /// How long a call may take; then it is cancelled, and throws `deadlineExceeded`.
  public static func timeout(_ limit: Duration) -> CallOptions { CallOptions(timeout: limit) }

  /// How often a call is made again when the connection to its actor breaks, whether it has run or not.
  public static func retries(_ times: Int) -> CallOptions { CallOptions(retries: max(0, times)) }
}

/// Options of calls of actors.
public enum Call {
  @TaskLocal static var options: CallOptions?

  /// Makes the calls in `body` so: by default they are made once, and take as long as they take.
  ///
  /// ```swift
  /// try await Call.with(.timeout(.seconds(1)), .retries(3)) { try await model.load(name) }
  /// ```
  public static func with<Value>(
    _ options: CallOptions..., body: () async throws -> Value
  ) async rethrows -> Value {
    var all = Self.options ?? CallOptions()
    for option in options {
      if let timeout = option.timeout { all.timeout = timeout }
      if option.retries > 0 { all.retries = option.retries }
    }
    return try await $options.withValue(all) { try await body() }
  }
}
