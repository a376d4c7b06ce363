import Distributed
import MobulaCore
import MobulaWire

extension Cluster {
  /// Starts an actor on a worker that has what it needs, which is its own until `stop`, or the end of the job.
  ///
  /// - Parameters:
  ///   - type: the actor's.
  ///   - configuration: what it is made with, each time that it is started: at most 1 MiB when it is encoded.
  ///   - options: those of the type, unless told otherwise.
  /// - Returns: the actor, or the one that has its name (`ActorName`).
  /// - Throws: `MobulaError`: `unschedulable` when nobody has it within `ActorOptions.startLimit`, `workFailed` with what
  ///   its `init` throws, `alreadyExists` when another actor has its name, `actorDied` when its worker ends before it is
  ///   there, `invalidArgument` for what can't be meant so.
  public func spawn<Act: RemoteActor>(
    _ type: Act.Type = Act.self, with configuration: Act.Configuration, _ options: ActorOptions = Act.options
  ) async throws -> Act {
    let start = try start(type, with: configuration, options)
    return try await RunningWork.waiting { try await begin(start.order, start.references) }
  }

  private func start<Act: RemoteActor>(
    _ type: Act.Type, with configuration: Act.Configuration, _ options: ActorOptions
  ) throws -> (order: ActorStart, references: [AnyReference]) {
    guard let program else {
      throw MobulaError(.invalidArgument, "This process started no job: connect with Cluster.connect() to run work.")
    }
    try TaskOptions.check(options.resources)
    try ClusterOptions.check(options.environment)
    let encoded = try ArgumentCoding.encode(configuration)
    if options.lifetime.isDetached, !encoded.references.isEmpty {
      throw MobulaError(
        .invalidArgument,
        "A detached actor can't be made with references, since their objects may go with this job: give the objects names, and the actor the names."
      )
    }
    let limit = options.startLimit ?? self.options.leaseDeadline
    let spec = ActorSpec(
      type: try Self.name(of: type), configuration: encoded.bytes, limit: options.concurrency.limit,
      restarts: options.restarts.most, name: options.name?.text, isDetached: options.lifetime.isDetached,
      demand: options.resources, strategy: options.placement, program: program.with(options.environment),
      startLimit: limit / .seconds(1))
    let order = ActorStart(
      actor: .random(), job: job, spec: spec, ifTaken: options.name?.ifTaken.rule ?? .fail)
    return (order, encoded.references)
  }

  private func begin<Act: RemoteActor>(_ order: ActorStart, _ references: [AnyReference]) async throws -> Act {
    // What it refers to must be known as held before others read it.
    try await store.holds.flush()
    do {
      // May be said again, to the head that comes after this one.
      let listing = try await head.call(
        HeadAPI.startActor, order, deadline: options.workDeadline ?? .untilItComes)
      // Another start needs it, too.
      if !references.isEmpty, order.spec.isRestartable, listing.actor == order.actor {
        actors.keep(references, of: order.actor)
      }
      return try resolve(listing)
    } catch {
      // What is not waited for any more is not to begin.
      let unsure: Set<MobulaError.Code> = [.connectionClosed, .deadlineExceeded, .unavailable]
      let isKnown = (error as? MobulaError).map { !unsure.contains($0.code) } ?? false
      if !isKnown {
        await cleanUp { [head] in
          _ = try? await head.call(
            HeadAPI.stopActor, ActorEnd(actor: order.actor, seconds: 0, restarts: false), deadline: .seconds(5))
        }
      }
      throw error
    }
  }

  private func resolve<Act: RemoteActor>(_ listing: ActorListing) throws -> Act {
    guard let endpoint = listing.endpoint else {
      throw MobulaError(
        .protocolViolation, "The head says that the actor \(listing.actor.short) lives, and not where.")
    }
    let address = ActorAddress(
      actor: listing.actor, endpoint: endpoint, incarnation: listing.incarnation, job: listing.job)
    calls.know(address)
    return try Act.resolve(id: address, using: self)
  }

  private static func name<Act>(of type: Act.Type) throws(MobulaError) -> String {
    guard let name = _mangledTypeName(type) else {
      throw MobulaError(
        .invalidArgument, "\(type) has no name that a worker could find: declare it outside of functions.")
    }
    return name
  }

  /// Starts so many actors alike, at the same time.
  ///
  /// - Throws: as for one; then those that were started have been stopped. `MobulaError` (`invalidArgument`) for fewer
  ///   than none, and for several with one name.
  public func spawn<Act: RemoteActor>(
    _ type: Act.Type = Act.self, count: Int, with configuration: Act.Configuration,
    _ options: ActorOptions = Act.options
  ) async throws -> [Act] {
    guard count >= 0 else { throw MobulaError(.invalidArgument, "\(count) actors can't be started: give 0 or more.") }
    if let name = options.name, count > 1 {
      throw MobulaError(
        .invalidArgument,
        "\(count) actors can't all be called \(Name(name.text)): start them one by one, each with its name.")
    }
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
      for actor in actors { try? await stop(actor, .now) }
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
      try? await stop(actor)
      return value
    } catch {
      // Also where this task was cancelled.
      await cleanUp { try? await self.stop(actor, .now) }
      throw error
    }
  }

  /// Ends an actor, and gives its resources back. One that has ended is no error.
  ///
  /// - Parameters:
  ///   - how: whether its calls may go on; for 30 s unless told otherwise.
  ///   - restarts: whether it is started again then, as it was at first, be it one that is not otherwise.
  /// - Throws: `MobulaError`: `denied` for another job's, unless it is detached.
  public func stop(
    _ actor: some RemoteActor, _ how: StopMode = .afterCalls(within: .seconds(30)), restarts: Bool = false
  ) async throws {
    let id = actor.id.actor
    try await end(ActorEnd(actor: id, seconds: how.seconds, restarts: restarts))
    // Its worker may still be there for a moment.
    calls.doubt(id, isOver: true)
    if restarts { return }
    actors.letGo(id)
    calls.forget(id)
  }

  /// Ends an actor by its name, or its identifier.
  ///
  /// - Throws: `MobulaError` (`notFound`) when no actor is called so.
  package func stopActor(_ nameOrID: String, _ how: StopMode, restarts: Bool) async throws {
    var end = ActorEnd(name: Name(nameOrID), seconds: how.seconds, restarts: restarts)
    do { return try await self.end(end) } catch let error as MobulaError where error.code == .notFound {
      guard let id = RemoteActorID(nameOrID), try await actors().contains(where: { $0.actor == id }) else {
        throw error
      }
      (end.actor, end.name) = (id, nil)
      try await self.end(end)
    }
  }

  private func end(_ end: ActorEnd) async throws {
    _ = try await RunningWork.waiting {
      try await head.call(HeadAPI.stopActor, end, deadline: .seconds(end.seconds + 60))
    }
  }

  /// The actor that is called so, in whichever job it was started.
  ///
  /// It is waited for while it is starting.
  /// - Throws: `MobulaError`: `notFound` when no actor is called so, `mismatch` when it is of another type, `denied` for
  ///   another job's, unless it is detached.
  public func actor<Act: RemoteActor>(named name: String, as type: Act.Type = Act.self) async throws -> Act {
    let wanted = try Self.name(of: type)
    let listing = try await RunningWork.waiting {
      try await head.call(
        HeadAPI.actor, ActorQuestion(name: Name(name), wish: .place), deadline: options.workDeadline ?? .untilItComes)
    }
    guard listing.type == wanted else {
      throw MobulaError(
        .mismatch,
        "The actor called \(Name(name)) is a \(readableName(ofType: listing.type)), and not a \(readableName(ofType: wanted))."
      )
    }
    return try resolve(listing)
  }

  /// The actors of the cluster, in the order of their identifiers.
  public func actors() async throws -> [ActorStatus] {
    var all: [ActorStatus] = []
    var request = ActorsRequest()
    while true {
      let page = try await head.call(HeadAPI.actors, request)
      all += page.actors.map { ActorStatus($0) }
      guard page.hasMore, let last = page.actors.last else { return all }
      request.after = last.actor
    }
  }

  /// How an actor is, now and after each change, until it has ended.
  ///
  /// Of changes that follow each other at once some may be left out.
  public func states(of actor: some RemoteActor) -> some AsyncSequence<ActorStatus, Never> & Sendable {
    let (states, continuation) = AsyncStream.makeStream(of: ActorStatus.self)
    let id = actor.id.actor
    let watching = Task { [head] in
      var seen: UInt64?
      while !Task.isCancelled {
        let question = ActorQuestion(actor: id, seen: seen, wish: seen == nil ? .now : .change)
        do {
          let listing = try await head.call(HeadAPI.actor, question, deadline: .untilItComes)
          seen = listing.revision
          continuation.yield(ActorStatus(listing))
          if listing.state == .dead { break }
        } catch let error as MobulaError where error.code == .connectionClosed {
          continue
        } catch {
          break
        }
      }
      continuation.finish()
    }
    continuation.onTermination = { _ in watching.cancel() }
    return states
  }
}
