import Logging
import MobulaCore
import MobulaWire

extension Cluster {
  /// Has some worker run a task, and returns at once; the reference's `value` waits for it.
  ///
  /// Tasks wait here for workers that have what they need, in the order in which they were submitted, and begin when the
  /// results that they refer to are there. A result of up to 100 KB comes to this process itself, and becomes an object of
  /// the cluster's when its reference is passed on. Inside a task, `value` of what it has submitted does not wait for room
  /// that the task itself has: what fits into its lease runs there meanwhile.
  /// - Parameter options: those of the type, unless told otherwise.
  /// - Throws: `MobulaError`: `invalidArgument` for a task that no worker could find, for options that can't be meant so,
  ///   or in a process that started no job; `full` beyond `ClusterOptions.queueLimit`; `unavailable` once the cluster was
  ///   closed; what the task throws when it is encoded.
  @discardableResult
  public func submit<Work: RemoteTask>(
    _ task: Work, _ options: TaskOptions = Work.options
  ) throws -> ObjectRef<Work.Output> {
    guard let tasks else {
      throw MobulaError(.invalidArgument, "This process started no job: connect with Cluster.connect() to run work.")
    }
    let type = try TaskTypes.shared.name(of: Work.self)
    try options.check()
    let arguments = try ArgumentCoding.encode(task)
    let object = ObjectID.random(job: job)
    let reference = references.reference(to: object) { number in
      AnyReference(
        object, cluster: self, number: number, isShared: false,
        task: TaskRecord(
          object, number: number, type: type, arguments: arguments, parent: RunningWork.current?.number ?? 0,
          options: options))
    }
    var limits = TaskQueueStateMachine.Limits()
    (limits.losses, limits.errors) = (options.retries.losses, options.retries.errors)
    // What is longer than that never comes, and may be more than instants can be.
    func bounded(_ limit: Duration?) -> Duration? { limit.map { min($0, .untilItComes) } }
    (limits.attempt, limits.wait) = (bounded(options.timeout), bounded(options.schedulingLimit))
    limits.end = bounded(options.deadline ?? self.options.workDeadline).map { .now + $0 }
    try tasks.submit(
      reference.task!,
      .init(demand: options.resources, strategy: options.placement, environment: options.environment), limits,
      after: options.arguments == .ready ? arguments.references.compactMap(\.task) : [])
    return ObjectRef(reference)
  }

  /// Has some worker run a task, and returns its result.
  ///
  /// When the Swift task that waits is cancelled, so is the remote one, with what it has submitted; this throws once that
  /// has ended, for which it has five seconds.
  /// - Throws: as `submit` and `ObjectRef.value`; `CancellationError`.
  @discardableResult
  public func run<Work: RemoteTask>(
    _ task: Work, _ options: TaskOptions = Work.options
  ) async throws -> Work.Output {
    let reference = try submit(task, options)
    return try await withTaskCancellationHandler {
      do {
        return try await reference.value(within: .untilItComes)
      } catch is CancellationError where Task.isCancelled {
        // Nothing of it goes on when this is over.
        await cleanUp { _ = await reference.reference.task?.wait(until: nil) }
        throw CancellationError()
      } catch let error as MobulaError where error.code == .cancelled && Task.isCancelled {
        throw CancellationError()
      }
    } onCancel: {
      reference.cancel(force: .after(.seconds(5)))
    }
  }

  /// The values of several references, of whichever types.
  ///
  /// - Throws: as `ObjectRef.value`, of the first of them that has none.
  public func values<each Value>(_ reference: repeat ObjectRef<each Value>) async throws -> (repeat each Value) {
    (repeat try await (each reference).value)
  }

  /// The values of references, in their order.
  ///
  /// - Parameter limit: for how long to wait for all of them; `ClusterOptions.valueDeadline` for each unless told otherwise.
  /// - Throws: as `ObjectRef.value`, of the first of them that has none.
  public func values<Value>(
    _ references: some Sequence<ObjectRef<Value>>, within limit: Duration? = nil
  ) async throws -> [Value] {
    let end = limit.map { ContinuousClock.now + $0 }
    var values: [Value] = []
    for reference in references {
      values.append(try await reference.value(within: end.map { max($0 - .now, .milliseconds(1)) }))
    }
    return values
  }

  /// References with their results, each as soon as it has one.
  ///
  /// It ends after the last of them.
  public func results<Value>(
    of references: some Sequence<ObjectRef<Value>>
  ) -> some AsyncSequence<(ObjectRef<Value>, Result<Value, any Error>), Never> & Sendable {
    let references = Array(references)
    let (ready, continuation) = AsyncStream.makeStream(of: Int.self)
    @Sendable func has(_ index: Int) { continuation.yield(index) }
    var watched: [(task: TaskRecord, ticket: UInt64)] = []
    var others: [Task<Void, Never>] = []
    for (index, reference) in references.enumerated() {
      guard let task = reference.reference.task else {
        // `value` says what is wrong with what does not come.
        others.append(
          Task { [self] in
            _ = try? await store.bring(reference.id, sources: .relay, deadline: .untilItComes)
            has(index)
          })
        continue
      }
      if let ticket = task.whenDone({ has(index) }) { watched.append((task, ticket)) } else { has(index) }
    }
    continuation.onTermination = { [watched, others] _ in
      for (task, ticket) in watched { task.stopWatching(ticket) }
      for task in others { task.cancel() }
    }
    return ready.prefix(references.count).map { index in
      let reference = references[index]
      do { return (reference, .success(try await reference.value)) } catch { return (reference, .failure(error)) }
    }
  }

  /// Results of tasks that are made of inputs, of which so many at most wait or run at a time.
  ///
  /// The next inputs are taken as results are: so it fits sequences of any length.
  /// - Parameters:
  ///   - limit: the most tasks at a time; 1,000 unless told otherwise.
  ///   - ordered: whether results come in the order of their inputs, or as they are there.
  ///   - options: those of the type, unless told otherwise.
  ///   - make: the task for an input.
  public func map<Input: Sendable, Work: RemoteTask>(
    _ inputs: some Sequence<Input> & Sendable, limit: Int = 1_000, ordered: Bool = true,
    options: TaskOptions? = nil, _ make: @escaping @Sendable (Input) throws -> Work
  ) -> some AsyncSequence<Work.Output, any Error> & Sendable {
    map(SequenceStream(base: inputs), limit: limit, ordered: ordered, options: options, make)
  }

  /// Results of tasks that are made of inputs as these come, of which so many at most wait or run at a time.
  ///
  /// - Parameters:
  ///   - limit: the most tasks at a time; 1,000 unless told otherwise.
  ///   - ordered: whether results come in the order of their inputs, or as they are there.
  ///   - options: those of the type, unless told otherwise.
  ///   - make: the task for an input.
  public func map<Inputs: AsyncSequence & Sendable, Work: RemoteTask>(
    _ inputs: Inputs, limit: Int = 1_000, ordered: Bool = true, options: TaskOptions? = nil,
    _ make: @escaping @Sendable (Inputs.Element) throws -> Work
  ) -> some AsyncSequence<Work.Output, any Error> & Sendable where Inputs.Element: Sendable {
    let options = options ?? Work.options
    return BoundedMap(inputs: inputs, limit: max(1, limit), ordered: ordered) { input in
      let task = try make(input)
      while true {
        let reference: ObjectRef<Work.Output>
        do { reference = try self.submit(task, options) } catch let error as MobulaError where error.code == .full {
          // Those that are there have to end first.
          try await Task.sleep(for: .milliseconds(20))
          continue
        }
        return try await withTaskCancellationHandler {
          try await reference.value
        } onCancel: {
          reference.cancel()
        }
      }
    }
  }

  /// Makes an object of a task's small result, which others were told of.
  func make(_ object: ObjectID, _ bytes: InlineObject) async {
    do {
      // It would go at once if nobody held it.
      try await store.holds.flush()
      try await store.make(object, size: bytes.bytes.count, holds: false, contains: []) { $0.append(bytes.bytes) }
    } catch let error as MobulaError where error.code == .alreadyExists {
    } catch {
      log.error(
        "a result could not be made an object, for which others wait",
        metadata: ["object": "\(object)", "error": "\(error)"])
    }
  }

  func giveBack(_ lease: LeaseID, workerIsReusable: Bool) async {
    workers.returned(lease)
    await head.giveBack(LeaseReturn(lease: lease, workerIsReusable: workerIsReusable))
  }
}
