internal import Logging
internal import MobulaCore
internal import MobulaWire

/// The state machines of a head, with what connects them to callers: which connection is
/// whose, and who waits for which answer.
///
/// Its methods decide, and leave what is to be done in `effects`.
struct HeadState: Sendable {
  let configuration: HeadConfiguration
  var directory: ObjectDirectoryStateMachine
  var membership: MembershipStateMachine
  var scheduler: SchedulerStateMachine
  /// Registrations of which not all has come.
  var arriving: [ConnectionID: HostRegistration] = [:]
  /// Connections of hosts, pods and drivers.
  var connections: [ConnectionID: RPCConnection] = [:]
  var jobs: JobsStateMachine
  var waiters: [RequestID: Waiter] = [:]
  /// When a wait for objects ends with what is there.
  var waitDeadlines: [RequestID: Duration] = [:]
  /// What drivers asked for, to be passed on to pods.
  var leaseRequests: [RequestID: LeaseRequest] = [:]
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
  /// Records that could not be kept when they came to be.
  var unsaved: [JournalRecord] = []
  /// Names that are about to be given, once that is written down.
  var pendingNames: [Name: ObjectID] = [:]
  /// Members whose registration is about to be written down.
  var registering: Set<HostID> = []
  /// The last instant that the shell told.
  var now = Duration.zero
  private var effects: [HeadEffect] = []
  private var lastRequest: UInt64 = 0

  init(_ configuration: HeadConfiguration) {
    self.configuration = configuration
    directory = ObjectDirectoryStateMachine()
    membership = MembershipStateMachine(
      hostTimeout: configuration.hostTimeout, retirement: configuration.retirement)
    scheduler = SchedulerStateMachine(infeasibleTimeout: configuration.infeasibleTimeout)
    jobs = JobsStateMachine(timeout: configuration.jobTimeout)
  }

  mutating func newRequest() -> RequestID {
    lastRequest += 1
    return RequestID(lastRequest)
  }

  mutating func takeEffects() -> [HeadEffect] {
    defer { effects = [] }
    return effects
  }

  mutating func act(_ effect: HeadEffect) { effects.append(effect) }

  mutating func watch(_ connection: RPCConnection) {
    if connections.updateValue(connection, forKey: ConnectionID(connection.id)) == nil { act(.watch(connection)) }
  }

  /// For people.
  func hostName(_ host: HostID) -> String { hostNames[host]?.printable ?? host.short }
  func podName(_ pod: PodID) -> String { podNames[pod]?.printable ?? pod.short }

  // MARK: Time

  mutating func tick(_ now: Duration) {
    tickMembers(now)
    end(jobs.tick(now), "since its driver did not come back")
    wakeForJobs()
    saveUnsaved()
    apply(scheduler.tick(now))
    for (request, _) in waitDeadlines.filter({ $0.value <= now }) {
      finishWait(request, directory.endWait(request))
    }
    if let next = waitDeadlines.values.min() { act(.wakeAt(next)) }
    apply(directory.retryParts(now: now))
    lookForSlowParts(now)
    if let instant = settlesAt {
      if instant <= now {
        settlesAt = nil
        endSettling(at: now)
      } else {
        act(.wakeAt(instant))
      }
    }
  }

  /// Whoever was on the connection is away.
  mutating func disconnected(_ connection: ConnectionID, at now: Duration) {
    guard connections.removeValue(forKey: connection) != nil else { return }
    arriving[connection] = nil
    apply(membership.connectionLost(connection, at: now), at: now)
    end(jobs.disconnected(connection, at: now), "with its driver's connection")
    wakeForJobs()
  }

  private mutating func wakeForJobs() {
    if let next = jobs.nextDeadline { act(.wakeAt(next)) }
  }

  /// The caller of a waiting request has gone.
  mutating func cancel(_ request: RequestID, at now: Duration) {
    guard let waiter = waiters.removeValue(forKey: request) else { return }
    switch waiter {
    case .locate: apply(directory.cancelLocate(request))
    case .lease:
      leaseRequests[request] = nil
      apply(scheduler.cancel(request, at: now))
    case .objects:
      waitDeadlines[request] = nil
      _ = directory.endWait(request)
    case .part: directory.cancelPart(request)
    }
    act(.resume { waiter.fail(CancellationError()) })
  }
}
