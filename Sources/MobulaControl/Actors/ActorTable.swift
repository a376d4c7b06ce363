import MobulaCore

/// An actor, as the head knows it.
struct ActorEntry: Sendable {
  enum Phase: Hashable, Sendable {
    /// What it is made of is being written down. Can transition to: waiting, or out of the table.
    case reserved
    /// A pod is sought for it. Can transition to: placed, pausing, or out of the table.
    case waiting(RequestID)
    /// A pod has it in its books, and that is being written down. Can transition to: starting, pausing, lost, or out.
    case placed(PodID)
    /// The pod was told to start it. Can transition to: alive, pausing, lost, stopping, or out.
    case starting(PodID)
    /// Can transition to: pausing, lost, stopping, or out.
    case alive(PodID, Endpoint)
    /// Its pod was told to end it. Can transition to: pausing, once it has; lost, or out.
    case ending(PodID)
    /// Its pod is lost, where it may live until the instant. Can transition to: pausing, or out.
    case lost(PodID, until: Duration)
    /// It is started again at the instant. Can transition to: waiting, or out.
    case pausing(until: Duration)
    /// It is to end, and was told so. Can transition to: pausing, lost, or out.
    case stopping(PodID)

    /// Where it is, or may be.
    var pod: PodID? {
      switch self {
      case .placed(let pod), .starting(let pod), .alive(let pod, _), .lost(let pod, _): pod
      case .stopping(let pod), .ending(let pod): pod
      case .reserved, .waiting, .pausing: nil
      }
    }
  }

  let spec: ActorSpec
  let job: JobID
  var phase: Phase
  /// Of the last lease that was asked for.
  var incarnation: UInt64 = 0
  var restarts = 0
  var revision: UInt64 = 1
  /// Why the incarnation before this one ended.
  var reason: String?
  /// Since when this incarnation lives.
  var aliveSince: Duration?
  /// Whether it has ever lived.
  var hasLived = false
  /// How many incarnations ended soon after their start, without one between them that did not.
  var failures = 0
  /// How long it waits, once its end is certain.
  var pause = Duration.zero
  /// Whether a worker asked for it, whose end may wait for it.
  var isNested = false
  /// How it is to end, while it does.
  var end: ActorEnd?
  var stoppers: [RequestID] = []
  var waiters: [RequestID: ActorWaiter] = [:]

  init(spec: ActorSpec, job: JobID, phase: Phase = .reserved) {
    self.spec = spec
    self.job = job
    self.phase = phase
  }

  func record(_ actor: RemoteActorID) -> ActorRecord {
    var record = ActorRecord(actor: actor, job: job, incarnation: incarnation, restarts: restarts, spec: spec)
    switch phase {
    case .placed, .starting, .alive, .stopping, .ending, .lost: record.pod = phase.pod
    case .reserved, .waiting, .pausing: break
    }
    if case .alive(_, let endpoint) = phase { record.endpoint = endpoint }
    record.hasLived = hasLived
    switch phase {
    case .ending, .lost: record.hasEnded = true
    default: break
    }
    return record
  }

  var state: ActorListing.State {
    switch phase {
    case .alive: .alive
    case .stopping: .stopping
    case .reserved, .waiting, .placed, .starting, .pausing, .ending, .lost:
      hasLived || restarts > 0 ? .restarting : .starting
    }
  }

  /// When something is to happen of itself.
  var due: Duration? {
    let own: Duration? =
      switch phase {
      case .lost(_, let until), .pausing(let until): until
      default: nil
      }
    return ([own] + waiters.values.map(\.until)).compactMap(\.self).min()
  }
}

/// Somebody who wants to know how an actor is.
struct ActorWaiter: Hashable, Sendable {
  var wish: ActorQuestion.Wish
  var after: UInt64?
  var seen: UInt64?
  /// When it is answered with what is so.
  var until: Duration?
}

/// The actors that there are, and the last ones that there were.
struct ActorTable: Sendable {
  private(set) var entries: [RemoteActorID: ActorEntry] = [:]
  private(set) var names: [Name: RemoteActorID] = [:]
  /// By the lease of the last incarnation.
  private(set) var leases: [LeaseID: RemoteActorID] = [:]
  /// How the last ones ended, and the order in which they did.
  private var dead: [RemoteActorID: ActorListing] = [:]
  private var deadInOrder: [RemoteActorID] = []
  private var oldest = 0
  private var due: [RemoteActorID: Duration] = [:]
  private var lastRequest: UInt64 = 1 << 63

  /// How many dead ones are remembered.
  static let mostDead = 10_000

  subscript(actor: RemoteActorID) -> ActorEntry? { entries[actor] }

  mutating func add(_ actor: RemoteActorID, _ entry: ActorEntry) {
    entries[actor] = entry
    if let name = entry.spec.name { names[Name(name)] = actor }
    note(actor, before: nil)
  }

  /// Changes an actor, and notes when it is due, and by which lease it lives.
  mutating func change<Answer>(_ actor: RemoteActorID, _ body: (inout ActorEntry) -> Answer) -> Answer? {
    guard entries[actor] != nil else { return nil }
    let before = entries[actor]?.incarnation
    let answer = body(&entries[actor]!)
    note(actor, before: before)
    return answer
  }

  private mutating func note(_ actor: RemoteActorID, before: UInt64?) {
    guard let entry = entries[actor] else { return }
    due[actor] = entry.due
    if before == entry.incarnation { return }
    if let before { leases[ActorSpec.lease(of: actor, before)] = nil }
    leases[ActorSpec.lease(of: actor, entry.incarnation)] = actor
  }

  /// Takes an actor out, and remembers how it ended.
  mutating func remove(_ actor: RemoteActorID, _ listing: ActorListing?) -> ActorEntry? {
    guard let entry = entries.removeValue(forKey: actor) else { return nil }
    due[actor] = nil
    leases[ActorSpec.lease(of: actor, entry.incarnation)] = nil
    if let name = entry.spec.name.map({ Name($0) }), names[name] == actor { names[name] = nil }
    if let listing { remember(actor, listing) }
    return entry
  }

  private mutating func remember(_ actor: RemoteActorID, _ listing: ActorListing) {
    guard dead.updateValue(listing, forKey: actor) == nil else { return }
    if deadInOrder.count < Self.mostDead {
      deadInOrder.append(actor)
    } else {
      dead[deadInOrder[oldest]] = nil
      deadInOrder[oldest] = actor
      oldest = (oldest + 1) % Self.mostDead
    }
  }

  /// An actor that is not there is not to be.
  mutating func refuse(_ actor: RemoteActorID, _ reason: String) {
    var listing = ActorListing(
      actor: actor, job: .commandLine, name: nil, type: "", isDetached: false, state: .dead, incarnation: 0,
      restarts: 0, revision: 1, build: "")
    listing.reason = reason
    if dead[actor] == nil { remember(actor, listing) }
  }

  func end(of actor: RemoteActorID) -> ActorListing? { dead[actor] }

  func ofJob(_ job: JobID) -> [RemoteActorID] { entries.filter { $0.value.job == job }.keys.sorted() }

  func atPod(_ pod: PodID) -> [RemoteActorID] { entries.filter { $0.value.phase.pod == pod }.keys.sorted() }

  /// Whether an actor lives by the lease, or is about to: then its pod may bring it before the actor has asked for it.
  func lives(by lease: LeaseID) -> Bool {
    leases[lease] != nil
      || entries.contains { actor, entry in
        if case .pausing = entry.phase { ActorSpec.lease(of: actor, entry.incarnation &+ 1) == lease } else { false }
      }
  }

  /// Numbers a request of the head's own, which nobody waits for.
  mutating func newRequest() -> RequestID {
    lastRequest += 1
    return RequestID(lastRequest)
  }

  func due(at now: Duration) -> [RemoteActorID] {
    due.isEmpty ? [] : due.filter { $0.value <= now }.keys.sorted()
  }

  var nextDue: Duration? { due.values.min() }
}
