package import MobulaCore

/// What is to be done once the state has decided, by whoever knows the connections and the callers that are only
/// numbers here.
package enum ClusterAction: Sendable {
  /// Write the records down, after those of all commits before, then say `committed`.
  case commit(CommitID, [JournalRecord])
  /// The answer to a question.
  case answer(RequestID, ClusterReply)
  case refuse(RequestID, MobulaError)
  /// The question was cancelled, by who asked it.
  case cancelled(RequestID)
  /// Say `disconnected` when the connection is gone.
  case watch(ConnectionID)
  case close(ConnectionID)
  case drop(DropRequest, at: ConnectionID)
  case keep(KeepRequest, at: ConnectionID)
  case names(NameNews, at: ConnectionID)
  /// Ask the pod for a lease, then say `podAnswered`; without a connection it can't be reached.
  case ask(PodID, LeaseRequest, at: ConnectionID?)
  /// Tell the pod to give a lease up; once it has, say `podReleased`.
  case release(PodID, LeaseReturn, at: ConnectionID?)
  case revoke(LeaseLost, at: ConnectionID)
  /// Tell the pod to start an actor, then say `actorStarted`; without a connection, or when that breaks, nothing: it is
  /// told again when it is back.
  case runActor(PodID, ActorRun, at: ConnectionID?)
  /// Tell the pod to let an actor end, then say `actorStopped`, also when it can't be told.
  case endActor(PodID, ActorEnding, at: ConnectionID?)
  /// Call `tick` at this instant since the start.
  case wakeAt(Duration)
  case log(LogLevel, String)

  /// How much a line of the log matters.
  package enum LogLevel: Sendable {
    case info, notice, warning, error
  }
}

/// The answer to a question that may have had to wait: for the journal, or for others.
package enum ClusterReply: Sendable {
  case done
  case registration(RegistrationReply)
  case drain(DrainReply)
  case job(JobReply)
  case claim(ClaimReply)
  case name(NameReply)
  case listing(ObjectListing)
  case locate(LocateReply)
  case lease(LeaseGrant)
  case objects([ObjectID])
  case part(PartReply)
  case actor(ActorListing)

  // Each question has one kind of answer, which who asked it takes out.

  package var registration: RegistrationReply {
    get throws(MobulaError) { if case .registration(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var drain: DrainReply {
    get throws(MobulaError) { if case .drain(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var job: JobReply {
    get throws(MobulaError) { if case .job(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var claim: ClaimReply {
    get throws(MobulaError) { if case .claim(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var name: NameReply {
    get throws(MobulaError) { if case .name(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var listing: ObjectListing {
    get throws(MobulaError) { if case .listing(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var locate: LocateReply {
    get throws(MobulaError) { if case .locate(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var lease: LeaseGrant {
    get throws(MobulaError) { if case .lease(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var objects: [ObjectID] {
    get throws(MobulaError) { if case .objects(let reply) = self { reply } else { throw Self.mixedUp } }
  }
  package var part: PartReply {
    get throws(MobulaError) { if case .part(let reply) = self { reply } else { throw Self.mixedUp } }
  }

  package var actor: ActorListing {
    get throws(MobulaError) { if case .actor(let reply) = self { reply } else { throw Self.mixedUp } }
  }

  private static let mixedUp = MobulaError(
    .protocolViolation, "The head gave another answer than was asked for: this is a fault of Mobula's.")
}

/// What a pod answered when it was asked for a lease.
package enum PodAnswer: Sendable {
  case granted(LeaseGrant)
  case refused(MobulaError)
  /// No answer: whether it has the lease is not known.
  case unreachable
}
