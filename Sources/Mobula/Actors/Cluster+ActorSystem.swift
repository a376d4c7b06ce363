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

  // MARK: - DistributedActorSystem

  public func resolve<Act: DistributedActor>(id: ActorAddress, as type: Act.Type) throws -> Act?
  where Act.ID == ActorAddress {
    guard let actor = actors[id.actor] else {
      // Wherever it is: only one that was made in this driver can be nowhere else.
      guard id.endpoint == ActorAddress.driver else { return nil }
      throw MobulaError(.actorDied, "The actor \(id) has ended.")
    }
    guard let actor = actor as? Act else {
      throw MobulaError(.mismatch, "The actor \(id) is not a \(type).")
    }
    return actor
  }

  public func assignID<Act: DistributedActor>(_ type: Act.Type) -> ActorAddress where Act.ID == ActorAddress {
    // An actor made in a driver has no address that others could reach.
    SpawnContext.current?.take(type)
      ?? ActorAddress(
        actor: .random(), endpoint: actors.endpoint ?? ActorAddress.driver, incarnation: 0, job: job)
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

  /// How often a call is made that was refused, which does no harm: seconds, in which a host finds its head again.
  private static let refusals = 5

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
        let reply = try await RunningWork.waiting {
          try await calls.call(
            address, target.identifier, invocation, result: .random(job: job),
            within: options?.timeout ?? self.options.workDeadline)
        }
        if case .failed(let bytes) = reply.outcome, let refusal = StoredFailure.of(bytes) as? MobulaError,
          refusal.code == .actorUnavailable
        {
          throw refusal
        }
        return reply
      } catch let error as MobulaError
        where error.code == .actorUnavailable
        && (attempt < options?.retries ?? 0 || !error.mayHaveRun && attempt < Self.refusals)
      {
        attempt += 1
        // It was refused: it may be somewhere else.
        if !error.mayHaveRun { calls.doubt(address.actor, isOver: false) }
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
  fileprivate func isHere(_ id: ActorAddress) -> Bool {
    actors[id.actor] != nil || id.endpoint == ActorAddress.driver
  }

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

  /// How often a call is made again when its actor is lost, or can't be reached, whether it has run or not: then it waits
  /// for the actor to be started again, where it is.
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
