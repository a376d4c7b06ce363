public import MobulaCore

/// What the head answers. Hosts, pods, drivers and the command line call it over TCP.
public enum HeadAPI {
  public static let registerHost = RPCMethod<HostRegistration, RegistrationReply>("head.registerHost")
  /// More of a registration that does not fit into one message. Only with the last of them is the host registered:
  /// what has not come yet does not count as gone.
  public static let registerMore = RPCMethod<RegistrationPart, RegistrationReply>("head.registerMore")
  public static let registerPod = RPCMethod<PodRegistration, RegistrationReply>("head.registerPod")
  /// The second step of a pod's registration.
  public static let confirmPod = RPCMethod<PodConfirmation, Empty>("head.confirmPod")
  /// A host ends in order, and nothing of what it had is left.
  public static let leave = RPCMethod<HostLeave, Empty>("head.leave")
  /// An absent host is not coming back: its holds fall, and what only it had is gone.
  ///
  /// - Errors: `notFound` when no host is called so, `unavailable` when it is connected.
  public static let forgetHost = RPCMethod<ResolveRequest, Empty>("head.forgetHost")

  /// A host is about to go: it gets no more work, and other hosts' copies become the ones that are kept. Or it is not.
  ///
  /// - Errors: `notFound` when no host is called so.
  public static let drainHost = RPCMethod<DrainRequest, DrainReply>("head.drainHost")

  public static let replicasChanged = RPCMethod<ReplicaChanges, Empty>("head.replicasChanged")
  public static let holdsChanged = RPCMethod<HoldChanges, Empty>("head.holdsChanged")
  public static let locate = RPCMethod<LocateRequest, LocateReply>("head.locate")
  public static let transferEnded = RPCMethod<TransferEnded, Empty>("head.transferEnded")
  /// Gives what is in S3 its object. Hosts that want it read it together, each a part at a time.
  public static let claim = RPCMethod<ClaimRequest, ClaimReply>("head.claim")
  /// Answers with what to read next, as soon as there is something, or nothing any more.
  public static let takePart = RPCMethod<PartRequest, PartReply>("head.takePart")
  /// The receiver can't read the object from S3 any more; what it has read it has.
  public static let partsFailed = RPCMethod<TransferEnded, Empty>("head.partsFailed")

  /// The object's bytes are not those that they should be: it goes, with its names, wherever it is.
  public static let damaged = RPCMethod<DamagedObject, Empty>("head.damaged")

  public static let setName = RPCMethod<NameRequest, NameReply>("head.setName")
  /// Takes a name away; the object goes if nothing else holds it.
  ///
  /// - Errors: `notFound` when nothing has the name.
  public static let removeName = RPCMethod<ResolveRequest, Empty>("head.removeName")
  /// - Errors: `notFound` when neither a name nor an object is called so.
  public static let resolve = RPCMethod<ResolveRequest, ObjectListing>("head.resolve")
  /// One page of the objects that there are.
  public static let list = RPCMethod<ListRequest, [ObjectListing]>("head.list")
  /// Takes an object's names away and drops it, whoever holds it.
  public static let remove = RPCMethod<ResolveRequest, ObjectListing>("head.remove")
  /// Answers when `count` of the objects have a complete replica, or at the timeout with those that have one.
  public static let waitForObjects = RPCMethod<WaitRequest, WaitReply>("head.waitForObjects")

  /// Has a host fetch an object; answers when it is there. Who cancels it ends the fetch, unless somebody else waits.
  ///
  /// - Errors: those of the fetch; `connectionClosed` when the host is not there, or goes meanwhile.
  public static let bring = RPCMethod<BringOrder, BringOutcome>("head.bring")
  /// Asks hosts how much of an object they have; those that don't answer are left out.
  public static let progress = RPCMethod<ProgressQuestion, [ReplicaProgress]>("head.progress")

  /// A job ends when its driver says so, when its host sees the driver's process end, or when the driver is without a
  /// connection for 60 s; at once if it does not resume it.
  public static let startJob = RPCMethod<JobStart, JobReply>("head.startJob")
  /// The driver goes on with its job on this connection.
  ///
  /// - Errors: `notFound` when the job has ended, `denied` for another secret.
  public static let resumeJob = RPCMethod<JobResumption, Empty>("head.resumeJob")
  /// A worker has leases of its job, whose driver claims its own only.
  public static let claimLeases = RPCMethod<LeaseClaims, Empty>("head.claimLeases")
  public static let endJob = RPCMethod<JobEnd, Empty>("head.endJob")
  /// A host has seen that the process which drives a job has ended.
  public static let driverEnded = RPCMethod<DriverEnded, Empty>("head.driverEnded")
  public static let requestLease = RPCMethod<LeaseRequest, LeaseGrant>("head.requestLease")
  public static let returnLease = RPCMethod<LeaseReturn, Empty>("head.returnLease")
  public static let leaseLost = RPCMethod<LeaseLost, Empty>("head.leaseLost")

  /// The token with which the workers of a job, and who calls them, prove themselves to each other.
  public static let jobToken = RPCMethod<JobTokenRequest, JobTokenReply>("head.jobToken")
  /// The head, and all hosts that are connected, use other tokens of the cluster from now on.
  public static let rotateToken = RPCMethod<TokenNews, TokenReply>("head.rotateToken")

  /// One page of the cluster as it is.
  public static let status = RPCMethod<StatusRequest, ClusterStatus>("head.status")
}

/// What a host answers to the head, on the connection that the host made.
public enum HostControlAPI {
  /// Nothing holds these any more.
  public static let drop = RPCMethod<DropRequest, Empty>("host.drop")
  /// These replicas are primary from now on: they are not evicted, since no other is known to stay.
  public static let keep = RPCMethod<KeepRequest, Empty>("host.keep")
  /// What objects of this host are called, for a head that has lost its journal.
  public static let names = RPCMethod<NameNews, Empty>("host.names")
  /// Answers when the object is complete in the host's store.
  public static let bring = RPCMethod<BringOrder, BringOutcome>("host.order")
  public static let progress = RPCMethod<ProgressQuestion, ReplicaProgress>("host.orderProgress")
  /// The cluster has other tokens from now on.
  public static let rotateToken = RPCMethod<TokenNews, Empty>("host.rotateToken")
}

/// What a pod answers to the head, on the connection that the pod made.
public enum PodControlAPI {
  /// - Errors: `full` when the pod's own books can't hold it; the head tries another pod.
  public static let grantLease = RPCMethod<LeaseRequest, LeaseGrant>("pod.grantLease")
  public static let releaseLease = RPCMethod<LeaseReturn, Empty>("pod.releaseLease")
}

/// What a driver answers to the head, on the connection that started its job.
public enum DriverControlAPI {
  /// A lease ended without the driver's doing: its worker or its pod is gone.
  public static let leaseRevoked = RPCMethod<LeaseLost, Empty>("driver.leaseRevoked")
}

/// What hosts and pods both answer to the head.
public enum MemberControlAPI {
  /// Nothing but an answer, so that the head knows that the process is there.
  public static let alive = RPCMethod<Empty, Empty>("member.alive")
}
