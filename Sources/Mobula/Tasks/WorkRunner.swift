import MobulaCore
import MobulaWire
import Synchronization

/// Runs tasks in this worker, whoever has submitted them.
final class WorkRunner: Sendable {
  /// Results up to this size go to the submitter itself, and not into a store: 100 KB.
  static let mostInline = 100_000

  let place: WorkPlace
  private let context: TaskContext
  private var cluster: Cluster { context.cluster }
  var tasks: TaskQueue? { cluster.tasks }

  init(_ context: TaskContext, worker: WorkerID) {
    self.context = context
    place = WorkPlace(host: context.hostName, pod: context.podName, worker: worker)
    cluster.tasks?.runsHere { [weak self] pushed, record, work in
      guard let self else { return .failed(Self.failure(TaskQueueStateMachine.cancelled)) }
      return await run(pushed, as: work) { try await self.tasks?.willStore(record) ?? false }
    }
  }

  /// - Parameter store: has the submitter hold the object that a result is about to become; false where nobody wants it.
  func run(
    _ pushed: PushedTask, as work: RunningWork, store: @escaping @Sendable () async throws -> Bool
  ) async -> EndedTask.Outcome {
    await work.run {
      do {
        // It may have been cancelled before it began.
        if work.isCancelled { throw TaskQueueStateMachine.cancelled }
        guard let type = TaskTypes.shared[pushed.type] else {
          throw MobulaError(
            .mismatch,
            "The task \(readableName(ofType: pushed.type)) is not in this worker's program: run the same build everywhere."
          )
        }
        // References that the task keeps outlive it: these are to be known before its submitter lets go.
        let (outcome, references) = try await self.run(type, pushed, store)
        if references.contains(where: { $0.reference != nil }) { try await self.cluster.store.holds.flush() }
        return outcome
      } catch {
        return .failed(Self.failure(work.isCancelled ? TaskQueueStateMachine.cancelled : error))
      }
    }
  }

  static func cancelled() -> InlineObject { failure(TaskQueueStateMachine.cancelled) }

  /// The object of an error.
  static func failure(_ error: any Error) -> InlineObject {
    do {
      if let error = error as? WorkError { return InlineObject(try EncodedValue(error, isError: true)) }
      return InlineObject(try EncodedValue(MobulaError(describing: error), isError: true))
    } catch {
      preconditionFailure("an error of ours can be encoded: \(error)")
    }
  }

  private struct WeakReference {
    weak var reference: AnyReference?
  }

  private func run<Work: RemoteTask>(
    _ type: Work.Type, _ pushed: PushedTask, _ store: @escaping @Sendable () async throws -> Bool
  ) async throws -> (EndedTask.Outcome, [WeakReference]) {
    let reader = ValueReader(cluster: cluster)
    let task = try ArgumentCoding.decode(type, from: pushed.arguments, reader: reader)
    let references = reader.references
    if pushed.bringsArguments, !references.isEmpty { try await bring(references) }
    let weak = references.map { WeakReference(reference: $0) }
    let result: EncodedValue
    do { result = try EncodedValue(try await task.run(in: context)) } catch {
      throw WorkError(error, of: "\(Work.self)", in: place, attempt: pushed.attempt)
    }
    if result.references.isEmpty, result.layout.size <= Self.mostInline { return (.inline(InlineObject(result)), weak) }
    // Its submitter holds the object before it is there: whatever happens here then, it stays.
    // A task that was cancelled meanwhile has a result all the same.
    let (object, cluster) = (pushed.result, cluster)
    try await Task.detached {
      guard try await store() else { return }
      do {
        try await cluster.make(object, result, holds: false, confirms: true)
      } catch let error as MobulaError where error.code == .alreadyExists {
        // An earlier attempt got as far as its result, but not as far as saying so.
      }
    }.value
    return (.stored, weak)
  }

  /// Has objects that a task refers to on this host before it begins.
  private func bring(_ references: [AnyReference]) async throws {
    let missing = try references.filter { try $0.task == nil && cluster.store.pinned($0.object) == nil }
    guard !missing.isEmpty else { return }
    try await RunningWork.waiting {
      try await withThrowingTaskGroup(of: Void.self) { group in
        for reference in missing {
          group.addTask {
            _ = try await self.cluster.store.bring(reference.object, sources: .relay, deadline: .untilItComes)
          }
        }
        try await group.waitForAll()
      }
    }
  }
}

/// Types of tasks by their mangled names, and the other way round: looking one up takes as long as a small task.
final class TaskTypes: Sendable {
  static let shared = TaskTypes()
  private let known = Mutex<(types: [String: any RemoteTask.Type], names: [ObjectIdentifier: String])>(([:], [:]))

  subscript(_ name: String) -> (any RemoteTask.Type)? {
    if let type = known.withLock({ $0.types[name] }) { return type }
    guard let type = _typeByName(name) as? any RemoteTask.Type else { return nil }
    known.withLock { $0.types[name] = type }
    return type
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for a type that no worker could find.
  func name(of type: any RemoteTask.Type) throws(MobulaError) -> String {
    if let name = known.withLock({ $0.names[ObjectIdentifier(type)] }) { return name }
    guard let name = _mangledTypeName(type), self[name] == type else {
      throw MobulaError(
        .invalidArgument, "\(type) has no name that a worker could find: declare it outside of functions.")
    }
    known.withLock { $0.names[ObjectIdentifier(type)] = name }
    return name
  }
}

extension Duration {
  /// For what takes as long as it takes: more than any connection lasts.
  static let untilItComes = Duration.seconds(10 * 365 * 86_400)
}
