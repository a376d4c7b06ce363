package import MobulaCore

/// What the head answers. Hosts, pods, drivers and the command line call it over TCP.
package enum HeadAPI {
  package static let registerHost = RPCMethod<HostRegistration, RegistrationReply>("head.registerHost")
  /// More of a registration that does not fit into one message. Only with the last of them is the host registered:
  /// what has not come yet does not count as gone.
  package static let registerMore = RPCMethod<RegistrationPart, RegistrationReply>("head.registerMore")
  package static let registerPod = RPCMethod<PodRegistration, RegistrationReply>("head.registerPod")
  /// The second step of a pod's registration.
  package static let confirmPod = RPCMethod<PodConfirmation, Empty>("head.confirmPod")
  /// A host ends in order, and nothing of what it had is left.
  package static let leave = RPCMethod<HostLeave, Empty>("head.leave")
  /// An absent host is not coming back: its holds fall, and what only it had is gone.
  ///
  /// - Errors: `notFound` when no host is called so, `unavailable` when it is connected.
  package static let forgetHost = RPCMethod<ResolveRequest, Empty>("head.forgetHost")

  /// A host is about to go: it gets no more work, and other hosts' copies become the ones that are kept. Or it is not.
  ///
  /// - Errors: `notFound` when no host is called so.
  package static let drainHost = RPCMethod<DrainRequest, DrainReply>("head.drainHost")

  package static let replicasChanged = RPCMethod<ReplicaChanges, Empty>("head.replicasChanged")
  package static let holdsChanged = RPCMethod<HoldChanges, Empty>("head.holdsChanged")
  package static let locate = RPCMethod<LocateRequest, LocateReply>("head.locate")
  package static let transferEnded = RPCMethod<TransferEnded, Empty>("head.transferEnded")
  /// Gives what is in S3 its object. Hosts that want it read it together, each a part at a time.
  package static let claim = RPCMethod<ClaimRequest, ClaimReply>("head.claim")
  /// As many claims at once.
  package static let claimAll = RPCMethod<ClaimsRequest, ClaimsReply>("head.claimAll")
  /// Answers with what to read next, as soon as there is something, or nothing any more.
  package static let takePart = RPCMethod<PartRequest, PartReply>("head.takePart")
  /// The receiver can't read the object from S3 any more; what it has read it has.
  package static let partsFailed = RPCMethod<TransferEnded, Empty>("head.partsFailed")

  /// The object's bytes are not those that they should be: it goes, with its names, wherever it is.
  package static let damaged = RPCMethod<DamagedObject, Empty>("head.damaged")

  package static let setName = RPCMethod<NameRequest, NameReply>("head.setName")
  /// As many names at once.
  package static let setNames = RPCMethod<NamesRequest, NamesReply>("head.setNames")
  /// Takes a name away; the object goes if nothing else holds it.
  ///
  /// - Errors: `notFound` when nothing has the name.
  package static let removeName = RPCMethod<ResolveRequest, Empty>("head.removeName")
  /// - Errors: `notFound` when neither a name nor an object is called so.
  package static let resolve = RPCMethod<ResolveRequest, ObjectListing>("head.resolve")
  /// One page of the objects that there are.
  package static let list = RPCMethod<ListRequest, [ObjectListing]>("head.list")
  /// Takes an object's names away and drops it, whoever holds it.
  package static let remove = RPCMethod<ResolveRequest, ObjectListing>("head.remove")
  /// Answers when `count` of the objects have a complete replica, or at the timeout with those that have one.
  package static let waitForObjects = RPCMethod<WaitRequest, WaitReply>("head.waitForObjects")

  /// Has a host fetch an object; answers when it is there. Who cancels it ends the fetch, unless somebody else waits.
  ///
  /// - Errors: those of the fetch; `connectionClosed` when the host is not there, or goes meanwhile.
  package static let bring = RPCMethod<BringOrder, BringOutcome>("head.bring")
  /// Asks hosts how much of an object they have; those that don't answer are left out.
  package static let progress = RPCMethod<ProgressQuestion, [ReplicaProgress]>("head.progress")

  /// A job ends when its driver says so, when its host sees the driver's process end, or when the driver is without a
  /// connection for 60 s; at once if it does not resume it.
  package static let startJob = RPCMethod<JobStart, JobReply>("head.startJob")
  /// The driver goes on with its job on this connection.
  ///
  /// - Errors: `notFound` when the job has ended, `denied` for another secret.
  package static let resumeJob = RPCMethod<JobResumption, Empty>("head.resumeJob")
  /// A worker has leases of its job, whose driver claims its own only.
  package static let claimLeases = RPCMethod<LeaseClaims, Empty>("head.claimLeases")
  package static let endJob = RPCMethod<JobEnd, Empty>("head.endJob")
  /// A host has seen that the process which drives a job has ended.
  package static let driverEnded = RPCMethod<DriverEnded, Empty>("head.driverEnded")
  package static let requestLease = RPCMethod<LeaseRequest, LeaseGrant>("head.requestLease")
  package static let returnLease = RPCMethod<LeaseReturn, Empty>("head.returnLease")
  package static let leaseLost = RPCMethod<LeaseLost, Empty>("head.leaseLost")
  /// A pod's: what workers have written, for the drivers of their jobs.
  package static let output = RPCNotice<OutputReport>("head.output")
  package static let explainLease = RPCMethod<LeaseQuestion, LeaseExplanation>("head.explainLease")
  package static let leaseLent = RPCMethod<LeaseLent, Empty>("head.leaseLent")

  /// Answered when the actor lives. Who cancels it, or is told that the head is gone, says it again or stops the actor.
  ///
  /// - Errors: `unschedulable`, `workFailed` with what its `init` has thrown, `actorDied`, `alreadyExists` for its name.
  package static let startActor = RPCMethod<ActorStart, ActorListing>("head.startActor")
  /// How an actor is, or where, once that is so what is asked for; with what is so after 5 s where it lives.
  ///
  /// - Errors: `notFound` for a name that no actor has, `actorDied` with the reason.
  package static let actor = RPCMethod<ActorQuestion, ActorListing>("head.actor")
  /// Answered when the actor has ended. One that has ended before is no error.
  ///
  /// - Errors: `notFound` for a name that no actor has.
  package static let stopActor = RPCMethod<ActorEnd, Empty>("head.stopActor")
  /// One page of the actors that there are.
  package static let actors = RPCMethod<ActorsRequest, ActorsReply>("head.actors")
  /// A pod's: nothing but an answer, so that it knows that the head knows of it.
  package static let hears = RPCMethod<Empty, Empty>("head.hears")

  /// The token with which the workers of a job, and who calls them, prove themselves to each other.
  package static let jobToken = RPCMethod<JobTokenRequest, JobTokenReply>("head.jobToken")
  /// The head, and all hosts that are connected, use other tokens of the cluster from now on.
  package static let rotateToken = RPCMethod<TokenNews, TokenReply>("head.rotateToken")

  /// One page of the cluster as it is.
  package static let status = RPCMethod<StatusRequest, ClusterStatus>("head.status")
}

/// What a host answers to the head, on the connection that the host made.
package enum HostControlAPI {
  /// Nothing holds these any more.
  package static let drop = RPCMethod<DropRequest, Empty>("host.drop")
  /// These replicas are primary from now on: they are not evicted, since no other is known to stay.
  package static let keep = RPCMethod<KeepRequest, Empty>("host.keep")
  /// What objects of this host are called, for a head that has lost its journal.
  package static let names = RPCMethod<NameNews, Empty>("host.names")
  /// Answers when the object is complete in the host's store.
  package static let bring = RPCMethod<BringOrder, BringOutcome>("host.order")
  package static let progress = RPCMethod<ProgressQuestion, ReplicaProgress>("host.orderProgress")
  /// The cluster has other tokens from now on.
  package static let rotateToken = RPCMethod<TokenNews, Empty>("host.rotateToken")
}

/// What a pod answers to the head, on the connection that the pod made.
package enum PodControlAPI {
  /// - Errors: `full` when the pod's own books can't hold it; the head tries another pod.
  package static let grantLease = RPCMethod<LeaseRequest, LeaseGrant>("pod.grantLease")
  package static let releaseLease = RPCMethod<LeaseReturn, Empty>("pod.releaseLease")
  /// Answered, with where it listens, when the actor is there.
  ///
  /// - Errors: what its `init` has thrown; `unavailable` where its worker has ended, which is told in its own way.
  package static let runActor = RPCMethod<ActorRun, Endpoint>("pod.runActor")
  /// Answered when the actor's calls have ended, or their time is over.
  package static let endActor = RPCMethod<ActorEnding, Empty>("pod.endActor")
}

/// What a driver answers to the head, on the connection that started its job.
package enum DriverControlAPI {
  /// A lease ended without the driver's doing: its worker or its pod is gone.
  package static let leaseRevoked = RPCMethod<LeaseLost, Empty>("driver.leaseRevoked")
  package static let output = RPCNotice<OutputReport>("driver.output")
}

/// What hosts and pods both answer to the head.
package enum MemberControlAPI {
  /// Nothing but an answer, so that the head knows that the process is there.
  package static let alive = RPCMethod<Empty, Empty>("member.alive")
}
