public import MobulaCore
import MobulaWire
import Synchronization

/// A reference of this process to an object: as long as it lives, the object is held.
///
/// All `ObjectRef`s of a process to the same object share one.
final class AnyReference: Sendable {
  let object: ObjectID
  let cluster: Cluster
  private let number: UInt64
  /// Whether anybody but this process can know of the object.
  private let isShared: Atomic<Bool>
  /// The task of this process's whose result it is.
  let task: TaskRecord?
  /// Those of the object in which this reference was found, as long as that one's hold is enough for both.
  private let container: InnerReferences?
  /// Of references that were found in this one's object.
  private let inner = Mutex<InnerReferences?>(nil)

  init(
    _ object: ObjectID, cluster: Cluster, number: UInt64, isShared: Bool, task: TaskRecord? = nil,
    container: InnerReferences? = nil
  ) {
    self.container = container
    self.task = task
    self.isShared = Atomic(isShared)
    self.object = object
    self.cluster = cluster
    self.number = number
  }

  deinit {
    let holds = cluster.store.holds
    inner.withLock { $0 }?.end(holds)
    // Nobody was told of it.
    if let container, container.remove(number) { return }
    if let task {
      if task.drop() { holds.release(object, by: number) }
      return
    }
    if isShared.load(ordering: .relaxed) {
      holds.release(object, by: number)
    } else {
      holds.releaseUnshared(object, by: number)
    }
  }

  /// The reference leaves this process: from now on the head has to know when it ends.
  func share() {
    container?.hold(number, cluster.store.holds)
    if let task { return task.share(self) { [cluster] in await cluster.make($0, $1) } }
    if !isShared.exchange(true, ordering: .relaxed) { cluster.store.holds.share(object) }
  }
}

/// References that were found in one object, which that object's hold is enough for: what it contains is there as long
/// as it is. Those that are there when it ends are held then, by themselves.
final class InnerReferences: Sendable {
  /// By their numbers; `nil` once the object's own reference has ended.
  private let objects = Mutex<[UInt64: ObjectID]?>([:])

  /// - Returns: whether the object's hold is enough for this one.
  func add(_ object: ObjectID, _ number: UInt64) -> Bool {
    objects.withLock { objects in
      guard objects != nil else { return false }
      objects?[number] = object
      return true
    }
  }

  /// - Returns: whether the object's hold was enough for it until now.
  func remove(_ number: UInt64) -> Bool { objects.withLock { $0?.removeValue(forKey: number) != nil } }

  // Holds are told under the lock: whoever finds that the object's is not enough any more finds its own told.

  /// One of them is to be held by itself.
  func hold(_ number: UInt64, _ holds: ProcessHolds) {
    objects.withLock { objects in
      if let object = objects?.removeValue(forKey: number) { holds.hold(object, by: number) }
    }
  }

  /// The object's own reference ends: those that are there are held by themselves.
  func end(_ holds: ProcessHolds) {
    objects.withLock { objects in
      for (number, object) in objects ?? [:] { holds.hold(object, by: number) }
      objects = nil
    }
  }
}

extension AnyReference {
  /// Those that were found in this one's object.
  var innerReferences: InnerReferences {
    inner.withLock { inner in
      if let inner { return inner }
      let new = InnerReferences()
      inner = new
      return new
    }
  }

  /// As `share`, and returns once there is an object that others may be told of by name.
  func shareWhole() async {
    share()
    await task?.waitUntilMade()
  }

  /// What came of the task whose result it is; `nil` for what is in a store, or comes into one.
  ///
  /// - Throws: `MobulaError` (`deadlineExceeded`), `CancellationError`.
  func result(within limit: Duration?) async throws -> InlineObject? {
    guard let task else { return nil }
    var outcome = task.outcome
    if outcome == nil { outcome = await RunningWork.waiting { await task.wait(until: limit.map { .now + $0 }) } }
    switch outcome {
    case .inline(let bytes)?, .failed(let bytes)?: return bytes
    case .stored?: return nil
    case nil:
      try Task.checkCancellation()
      throw MobulaError(
        .deadlineExceeded,
        "The task \(task.name) did not end within \(limit ?? .zero): `mobula status` shows whether it waits for a worker."
      )
    }
  }
}

/// An immutable value in the stores of the cluster, there or yet to come.
///
/// Codable: it can be passed in the arguments and results of tasks and actors and
/// inside other values. As long as any process has a reference, or an object that
/// contains one is alive, the object stays; then it goes.
public struct ObjectRef<Value: Codable & Sendable>: Sendable, Hashable {
  let reference: AnyReference

  init(_ reference: AnyReference) { self.reference = reference }

  /// The object that it refers to.
  public var id: ObjectID { reference.object }

  /// The value, once it is made and every byte of it is on this host.
  ///
  /// Big buffers (`Blob`) in it are views of the shared memory, not copies.
  /// - Throws: `WorkError` for what the task threw that was to make it; `MobulaError`: `workerLost`, `unschedulable`,
  ///   `cancelled` and the like where it did not end, `notFound` when no replica is left, `deadlineExceeded` after
  ///   `ClusterOptions.valueDeadline`; `CancellationError` when the Swift task that waits is cancelled.
  public var value: Value {
    get async throws {
      // What is here takes no wait, no call and no system call: that is nearly all of the time that it takes.
      do {
        return try reference.cluster.present(reference)
      } catch is Absent {
        return try await value()
      }
    }
  }

  /// The value, with a deadline and a say in where its bytes come from.
  ///
  /// - Parameters:
  ///   - deadline: for how long to wait; `ClusterOptions.valueDeadline` unless told otherwise.
  ///   - sources: `.relay` takes them from any host that has some of them; `.origin` from the host where the object was
  ///     made, however many ask it.
  public func value(within deadline: Duration? = nil, sources: SourcePolicy = .relay) async throws -> Value {
    let cluster = reference.cluster
    let deadline = deadline ?? cluster.options.valueDeadline
    let end = deadline.map { ContinuousClock.now + $0 }
    if let bytes = try await reference.result(within: deadline) {
      return try cluster.decode(Value.self, from: bytes, of: reference)
    }
    if let pinned = try cluster.store.pinned(id) { return try cluster.decode(Value.self, from: pinned, of: reference) }
    let pinned = try await RunningWork.waiting {
      try await cluster.store.pin(
        id, sources: sources, deadline: end.map { max($0 - .now, .milliseconds(1)) } ?? .untilItComes)
    }
    return try cluster.decode(Value.self, from: pinned, of: reference)
  }

  /// Has the task end whose result it is, if this process has submitted it and it has not ended.
  ///
  /// One that waits never begins. One that runs is told: its Swift task is cancelled, and `value` throws
  /// `MobulaError` (`cancelled`) when it has ended by an error; a result that it returns all the same counts. Once is
  /// enough; of what has ended, or is not a task's, nothing happens.
  /// - Parameters:
  ///   - force: when the worker of a task that goes on is ended.
  ///   - children: whether the tasks that it has submitted, and that have not ended, are cancelled with it.
  public func cancel(force: Force = .never, children: Bool = true) {
    guard let task = reference.task else { return }
    if task.isCall { return reference.cluster.calls.cancel(task) }
    reference.cluster.tasks?.cancel(task, force: force.delay, children: children)
  }

  /// The value and how it came.
  public func fetched(within deadline: Duration? = nil, sources: SourcePolicy = .relay) async throws -> Fetched<Value> {
    let cluster = reference.cluster
    if reference.task != nil {
      _ = try await reference.result(within: deadline ?? cluster.options.valueDeadline)
      await reference.shareWhole()
    }
    let brought = try await cluster.store.bring(
      id, sources: sources, deadline: deadline ?? cluster.options.valueDeadline ?? .untilItComes)
    let value = try cluster.decode(Value.self, from: brought.pinned, of: reference)
    return Fetched(value: value, digest: brought.digest, bytesCopied: brought.bytesCopied)
  }

  public static func == (a: Self, b: Self) -> Bool { a.id == b.id }
  public func hash(into hasher: inout Hasher) { hasher.combine(id) }
}

/// When a task that was cancelled and goes on has its worker ended.
public struct Force: Sendable, Hashable {
  let delay: Duration?

  /// Never: it is asked, and nothing else.
  public static let never = Force(delay: nil)

  /// So long after it was told.
  public static func after(_ delay: Duration) -> Force { Force(delay: max(delay, .zero)) }
}

/// A value and how it came to this process.
public struct Fetched<Value: Sendable>: Sendable {
  /// The value.
  public let value: Value
  /// What the object's bytes are.
  public let digest: ObjectDigest
  /// Bytes that came into this host's store for this call: 0 when the object was
  /// on the host already, or on its way there for somebody else.
  public let bytesCopied: Int
}

extension ObjectRef: Codable {
  public init(from decoder: any Decoder) throws {
    let object = try ObjectID(from: decoder)
    guard let reader = decoder.userInfo[.valueReader] as? ValueReader else {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(
          codingPath: decoder.codingPath,
          debugDescription: "an ObjectRef can only be decoded by Mobula, in a value, an argument or a result"))
    }
    reference = reader.cluster.reference(to: object, in: reader.container)
    // What the object's hold is enough for, nobody has to be told of.
    if reader.container == nil { reader.add(reference) }
  }

  public func encode(to encoder: any Encoder) throws {
    guard let writer = encoder.userInfo[.valueWriter] as? ValueWriter else {
      throw EncodingError.invalidValue(
        self,
        EncodingError.Context(
          codingPath: encoder.codingPath,
          debugDescription: "an ObjectRef can only be encoded by Mobula, which then keeps its object alive on the way"))
    }
    reference.share()
    writer.add(reference)
    try id.encode(to: encoder)
  }
}
