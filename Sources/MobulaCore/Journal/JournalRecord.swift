/// One fact that the head keeps over its own end: what it was, or what it is from now on.
///
/// A record says the whole of what it is about, so that writing it twice is writing it once. What follows from
/// registrations (replicas, holds, leases, idle workers) is in no record.
package enum JournalRecord: Hashable, Sendable {
  /// Written by the first head of a cluster.
  case cluster(ClusterID)
  /// Whether the journal was lost, so that what hosts say is taken for true until all have had their time to say it.
  case recovering(Bool)
  /// Of the head that writes from now on: grows with every start, and is written before it listens.
  case epoch(UInt64)
  /// Numbers below the limit may have been given out.
  case counter(JournalCounter, limit: UInt64)
  case host(HostRecord)
  /// Nothing is known of the host any more, not even that it was retired.
  case hostForgotten(HostID)
  /// Whether the host gets nothing new, since it is about to go.
  case draining(HostID, Bool)
  case pod(PodRecord)
  case podForgotten(PodID)
  case job(JobRecord)
  /// The job has ended and nobody asks for its outcome: a number below the counter's limit without a record is an ended job.
  case jobForgotten(JobID)
  case name(NameRecord)
  case nameRemoved(String)
  case actor(ActorRecord)
  /// The actor has ended for good.
  case actorForgotten(RemoteActorID)
}

/// What the head numbers. A block of numbers is reserved by one record, and the numbers of a block
/// that were not given out when the head ended are never given out.
package enum JournalCounter: UInt8, Hashable, Sendable, CaseIterable {
  case jobs = 1
  /// Of versions of URLs.
  case claims = 2

  /// How many numbers one record reserves.
  package static let block: UInt64 = 1024
}

/// A host, and what the head needs to tell it from another that uses its identifier.
package struct HostRecord: Hashable, Sendable {
  package enum State: UInt8, Hashable, Sendable {
    /// Can transition to: absent, retired.
    case member = 1
    /// Not connected and declared lost; its holds and names still count. Can transition to: member, retired.
    case absent = 2
    /// Its holds are gone: it has to end its processes before it registers anew. Can transition to: member.
    case retired = 3
  }

  package var host: HostID
  /// Drawn by the process that is registered.
  package var nonce: ProcessNonce
  /// Given by the head; grows with every process.
  package var incarnation: UInt64
  /// Grows whenever the host is declared lost.
  package var session: UInt64
  package var state: State
  package var name: String
  /// When it came into the state, in seconds since 1970: for people, and never compared with a clock to decide.
  package var since: UInt64

  package init(
    host: HostID, nonce: ProcessNonce, incarnation: UInt64, session: UInt64 = 0, state: State = .member, name: String,
    since: UInt64 = 0
  ) {
    self.host = host
    self.nonce = nonce
    self.incarnation = incarnation
    self.session = session
    self.state = state
    self.name = name
    self.since = since
  }
}

/// A pod, as a host is.
package struct PodRecord: Hashable, Sendable {
  package var pod: PodID
  package var host: HostID
  package var nonce: ProcessNonce
  package var incarnation: UInt64
  /// Grows whenever the pod is declared lost: leases of an older session are over.
  package var session: UInt64
  package var state: HostRecord.State
  package var name: String

  package init(
    pod: PodID, host: HostID, nonce: ProcessNonce, incarnation: UInt64, session: UInt64 = 0,
    state: HostRecord.State = .member, name: String
  ) {
    self.pod = pod
    self.host = host
    self.nonce = nonce
    self.incarnation = incarnation
    self.session = session
    self.state = state
    self.name = name
  }
}

/// A driver's job.
package struct JobRecord: Hashable, Sendable {
  package enum State: UInt8, Hashable, Sendable {
    /// Can transition to: ended.
    case running = 1
    case ended = 2
  }

  package var job: JobID
  /// Who has it is the job's driver, at whichever head.
  package var secret: JobSecret
  package var state: State
  /// Of the driver's executable, where it said so.
  package var program: [UInt8]?

  package init(job: JobID, secret: JobSecret, state: State = .running, program: [UInt8]? = nil) {
    self.job = job
    self.secret = secret
    self.state = state
    self.program = program
  }
}

/// An object's name: one that somebody gave, a URL, or one version of a URL.
package struct NameRecord: Hashable, Sendable {
  /// Two names are one only if they have the same bytes, unlike strings in Swift.
  package var name: String
  package var known: KnownName

  package init(_ name: String, _ known: KnownName) {
    self.name = name
    self.known = known
  }

  package static func == (a: Self, b: Self) -> Bool { a.name.utf8.elementsEqual(b.name.utf8) && a.known == b.known }

  package func hash(into hasher: inout Hasher) {
    for byte in name.utf8 { hasher.combine(byte) }
    hasher.combine(known)
  }
}

/// An actor, as it is to be there again when the head is.
package struct ActorRecord: Hashable, Sendable {
  package var actor: RemoteActorID
  /// The job that it ends with.
  package var job: JobID
  /// Of the last lease that was asked for: no process runs one that is not written down.
  package var incarnation: UInt64
  /// How often it was started again.
  package var restarts: Int
  /// Whether an incarnation has lived.
  package var hasLived = false
  /// Whether the incarnation is to be over, and may not be yet.
  package var hasEnded = false
  /// Where that incarnation is; `nil` while it has no place.
  package var pod: PodID?
  /// Where it listens; `nil` until it does.
  package var endpoint: Endpoint?
  package var spec: ActorSpec

  package init(actor: RemoteActorID, job: JobID, incarnation: UInt64, restarts: Int, spec: ActorSpec) {
    self.actor = actor
    self.job = job
    self.incarnation = incarnation
    self.restarts = restarts
    self.spec = spec
  }
}
