package import MobulaCore

/// Numbers what is written down together, in the order of the decisions.
package struct CommitID: Hashable, Comparable, Sendable, CustomStringConvertible {
  package let number: UInt64

  package init(_ number: UInt64) { self.number = number }
  package var next: CommitID { CommitID(number + 1) }
  package var description: String { "\(number)" }
  package static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}

/// What follows once the records of a decision are kept, or could not be.
enum Proposal: Sendable {
  /// A process becomes the host that it says it is.
  case registration(RequestID, HostRegistration, HostRecord?, on: ConnectionID)
  /// A process becomes the pod that it says it is.
  case podRegistration(RequestID, PodRegistration, PodRecord?, on: ConnectionID)
  /// A host is to be drained, or no longer.
  case drain(RequestID, HostID, Bool)
  /// Members came into another state.
  case members([MembershipAction])
  case jobStart(RequestID, JobReply, JobSecret, resumes: Bool, host: HostID?, on: ConnectionID)
  /// A driver goes on with a job that this journal does not know.
  case jobResumption(RequestID, JobResumption, isNews: Bool, host: HostID?, on: ConnectionID)
  /// Jobs are over: their work ends and their objects go.
  case jobEnd([JobID])
  /// - The last is a host that wants its first part at once, or to hear who has all.
  case claim(RequestID, ClaimReply, HostID?)
  /// - The last is what the name becomes; `nil` where it is no news.
  case name(RequestID, NameRequest, KnownName?)
  case nameRemoval(RequestID, Name)
  /// - The last are the names that were written to be nothing.
  case removal(RequestID, ObjectID, ObjectListing, Set<Name>)
  /// An actor is made of this; its secret is that of a job of its own.
  case actorStart(RequestID, RemoteActorID, JobSecret)
  /// An incarnation of an actor has its place.
  case actorPlaced(RemoteActorID, UInt64)
  /// An actor has ended for good, which these wait for.
  case actorEnd([RequestID])
  /// What needs nobody's answer.
  case news
}

extension ClusterState {
  /// Has records written down, and goes on when they are: what follows from them is not to be seen before.
  mutating func propose(_ records: [JournalRecord], _ proposal: Proposal) {
    guard isJournalled, !records.isEmpty else { return finish(proposal, nil) }
    lastCommit = lastCommit.next
    let subjects = records.compactMap { JournalSubject($0) }
    for subject in subjects { proposed[subject, default: 0] += 1 }
    proposals[lastCommit] = (proposal, subjects)
    act(.commit(lastCommit, records))
  }

  /// The journal has kept the records of a commit, or has not, because of `failure`. Said once for each commit, in
  /// their order.
  package mutating func committed(_ commit: CommitID, _ failure: MobulaError?) {
    guard let (proposal, subjects) = proposals.removeValue(forKey: commit) else { return }
    for subject in subjects {
      let left = proposed[subject, default: 1] - 1
      proposed[subject] = left == 0 ? nil : left
    }
    // What is refused is not so, and what can't be refused is so all the same: both are written down again.
    if failure == nil { unsaved.subtract(subjects) } else { saveLater(subjects) }
    finish(proposal, failure)
  }

  private mutating func finish(_ proposal: Proposal, _ failure: MobulaError?) {
    switch proposal {
    case .registration(let id, let registration, let news, let connection):
      registering.remove(registration.host)
      if let failure { return refuse(id, failure) }
      decide(id) { state throws(MobulaError) in try state.written(id, registration, news, on: connection) }
    case .podRegistration(let id, let registration, let news, let connection):
      registeringPods.remove(registration.pod)
      if let failure { return refuse(id, failure) }
      decide(id) { state throws(MobulaError) in try state.written(id, registration, news, on: connection) }
    case .drain(let id, let host, let isDraining):
      if let failure { return refuse(id, failure) }
      setDraining(host, isDraining)
      answer(id, .drain(DrainReply(host: host, name: Name(membership.hosts[host]?.description.name ?? ""))))
    case .members(let actions): apply(actions)
    case .jobStart(let id, let reply, let secret, let resumes, let host, let connection):
      if let failure {
        unreserve(.jobs)
        return refuse(id, failure)
      }
      jobs.started(reply.job, secret: secret, resumes: resumes, host: host, on: connection)
      watch(connection)
      answer(id, .job(reply))
    case .jobResumption(let id, let request, let isNews, let host, let connection):
      if let failure { return refuse(id, failure) }
      decide(id) { state throws(MobulaError) in
        try state.resume(id, request, isNews: isNews, host: host, on: connection)
      }
    case .jobEnd(let ended):
      for job in ended {
        ending.remove(job)
        forgetActors(of: job)
        apply(directory.jobEnded(job))
        apply(scheduler.jobEnded(job, at: now))
      }
    case .claim(let id, let reply, let reader):
      if let failure {
        unreserve(.claims)
        return refuse(id, failure)
      }
      answer(id, .claim(reader.map { firstPart(reply, for: $0) } ?? reply))
    case .name(let id, let request, let news): finishName(id, request, news, failure)
    case .nameRemoval(let id, let name):
      if let failure { return refuse(id, failure) }
      // It may have gone meanwhile.
      if let actions = try? directory.unnamed(name) {
        saveNames(besides: .nameRemoved(name.text))
        apply(actions)
      }
      answer(id, .done)
    case .removal(let id, let object, let listing, let written):
      if let failure { return refuse(id, failure) }
      // It may have been given others meanwhile.
      let others = Set(directory.records[object]?.names ?? []).subtracting(written)
      if !others.isEmpty {
        return propose(
          others.sorted().map { .nameRemoved($0.text) }, .removal(id, object, listing, written.union(others)))
      }
      apply(directory.removed(object))
      answer(id, .listing(listing))
    case .actorStart(let id, let actor, let secret): actorReserved(id, actor, secret, failure)
    case .actorPlaced(let actor, let incarnation): actorPlaced(actor, incarnation, failure)
    case .actorEnd(let stoppers): actorEnded(stoppers, failure)
    case .news: break
    }
  }

  private mutating func finishName(
    _ id: RequestID, _ request: NameRequest, _ news: KnownName?, _ failure: MobulaError?
  ) {
    let (name, object) = (request.name, request.object)
    if news != nil { pendingNames[name] = nil }
    if let failure { return refuse(id, failure) }
    do throws(MobulaError) {
      let actions = try directory.named(name, object, claim: request.claim)
      saveNames(besides: news.map { .name(NameRecord(name.text, $0)) })
      apply(actions)
      answer(id, .name(NameReply(isNamed: directory.names[name] == object)))
    } catch {
      // What was written down is not so after all.
      saveLater([.name(name)])
      refuse(id, error)
    }
  }
}
