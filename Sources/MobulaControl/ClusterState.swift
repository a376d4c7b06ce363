import MobulaCore

/// The control plane of a cluster as one value: who is a member, where objects are and what they are called, who holds
/// them, who works where, and what is about to be written down.
///
/// Its methods are the events. Each decides at once, and leaves what is to be done in `takeActions`: connections,
/// callers and the journal are only numbers in it. What must outlive the head is *proposed*: its records are committed
/// first, then it is applied, and only then answered (`committed`).
///
/// There are two kinds of events. *Questions* have a `RequestID`, and are answered by an action, sooner or later. *News*
/// are answered by the method itself, which throws when it refuses them.
package struct ClusterState: Sendable {
  let settings: ClusterSettings
  var directory: ObjectDirectoryStateMachine
  var membership: MembershipStateMachine
  var scheduler: SchedulerStateMachine
  var jobs: JobsStateMachine
  var actors = ActorTable()
  /// Registrations of which not all has come.
  var arriving: [ConnectionID: HostRegistration] = [:]
  /// Connections of hosts, pods and drivers that are there.
  var connections: Set<ConnectionID> = []
  /// Questions that can be cancelled, and have not been answered.
  var questions: [RequestID: Question] = [:]
  /// When a wait for objects ends with what is there.
  var waitDeadlines: [RequestID: Duration] = [:]
  /// What pods have granted, until the driver has it.
  var grants: [LeaseID: LeaseGrant] = [:]
  /// What people call hosts and pods, also those that are lost: errors name them.
  var hostNames = MemberNames<HostID>()
  var podNames = MemberNames<PodID>()
  /// When hosts that knew a former head have had their time to register.
  var settlesAt: Duration?
  /// Whether names and jobs are learned from who registers, since nothing was written down, or it was lost.
  var mayLearn = true
  /// Whether it was lost, so that the journal is to know once all have had their time to say what they know.
  var isRecovering = false
  /// Whether what must outlive this head is written down.
  var isJournalled = false
  /// Numbers below these may be given out.
  var limits: [JournalCounter: UInt64] = [:]
  /// What is being written down, with what follows from it.
  var proposals: [CommitID: (proposal: Proposal, subjects: [JournalSubject])] = [:]
  var lastCommit = CommitID(0)
  /// What the journal could not keep when it came to be.
  var unsaved: Set<JournalSubject> = []
  /// About what records are being written down, and how many.
  var proposed: [JournalSubject: Int] = [:]
  /// Names that are about to be given, once that is written down.
  var pendingNames: [Name: ObjectID] = [:]
  /// Jobs whose end is being written down: whoever brings something of them meanwhile makes no running job of them.
  var ending: Set<JobID> = []
  /// Members whose registration is about to be written down.
  var registering: Set<HostID> = []
  var registeringPods: Set<PodID> = []
  /// The last instant that anybody told, since the head's start.
  package var now = Duration.zero
  private var actions: [ClusterAction] = []

  package init(_ settings: ClusterSettings) {
    self.settings = settings
    directory = ObjectDirectoryStateMachine()
    membership = MembershipStateMachine(hostTimeout: settings.hostTimeout, retirement: settings.retirement)
    scheduler = SchedulerStateMachine(infeasibleTimeout: settings.infeasibleTimeout)
    jobs = JobsStateMachine(timeout: settings.jobTimeout)
  }

  /// What is to be done since it was last asked, in this order.
  package mutating func takeActions() -> [ClusterAction] {
    defer { actions = [] }
    return actions
  }

  mutating func act(_ action: ClusterAction) { actions.append(action) }

  mutating func watch(_ connection: ConnectionID) {
    if connections.insert(connection).inserted { act(.watch(connection)) }
  }

  /// Decides on a question; what is thrown is its answer.
  mutating func decide(_ id: RequestID, _ body: (inout Self) throws(MobulaError) -> Void) {
    do throws(MobulaError) { try body(&self) } catch { refuse(id, error) }
  }

  mutating func answer(_ id: RequestID, _ reply: ClusterReply) {
    questions[id] = nil
    act(.answer(id, reply))
  }

  mutating func refuse(_ id: RequestID, _ error: MobulaError) {
    questions[id] = nil
    act(.refuse(id, error))
  }

  /// For people.
  func hostName(_ host: HostID) -> String { hostNames[host]?.printable ?? host.short }
  func podName(_ pod: PodID) -> String { podNames[pod]?.printable ?? pod.short }

  // MARK: Time

  /// Time has passed: `now` is another.
  package mutating func tick() {
    tickMembers()
    end(jobs.tick(now), "since its driver did not come back")
    decideClaims()
    wakeForJobs()
    tickActors()
    saveUnsaved()
    apply(scheduler.tick(now))
    for request in waitDeadlines.filter({ $0.value <= now }).keys.sorted() {
      finishWait(request, directory.endWait(request))
    }
    if let next = waitDeadlines.values.min() { act(.wakeAt(next)) }
    apply(directory.retryParts(now: now))
    lookForSlowParts()
    if let instant = settlesAt {
      if instant <= now { endSettling() } else { act(.wakeAt(instant)) }
    }
  }

  /// Whoever was on the connection is away.
  package mutating func disconnected(_ connection: ConnectionID) {
    guard connections.remove(connection) != nil else { return }
    arriving[connection] = nil
    apply(membership.connectionLost(connection, at: now))
    end(jobs.disconnected(connection, at: now), "with its driver's connection")
    wakeForJobs()
  }

  private mutating func wakeForJobs() {
    if let next = jobs.nextDeadline { act(.wakeAt(next)) }
  }

  /// The caller of a question has gone. One that is only being written down is answered nevertheless.
  package mutating func cancel(_ id: RequestID) {
    guard let question = questions.removeValue(forKey: id) else { return }
    switch question {
    case .locate: apply(directory.cancelLocate(id))
    case .lease: apply(scheduler.cancel(id, at: now))
    case .objects:
      waitDeadlines[id] = nil
      _ = directory.endWait(id)
    case .part: directory.cancelPart(id)
    case .actor(let actor): stopWaiting(id, for: actor)
    // Nobody asks for it from outside.
    case .actorLease: break
    }
    act(.cancelled(id))
  }
}

/// What somebody waits for.
enum Question: Sendable {
  case locate(LocateRequest)
  /// To be passed on to pods.
  case lease(LeaseRequest)
  case objects
  case part
  /// How an actor is.
  case actor(RemoteActorID)
  /// What an actor is to live by, to be passed on to pods.
  case actorLease(RemoteActorID, LeaseRequest)
}
