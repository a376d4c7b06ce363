/// All that records say, one after the other: what a head begins with.
package struct JournalState: Hashable, Sendable {
  package var cluster: ClusterID?
  /// Names and numbers of hosts are to be learned from them: the journal before was lost.
  package var isRecovering = false
  /// Of the last head; 0 when there was none.
  package var epoch: UInt64 = 0
  /// Numbers below these may have been given out.
  package var limits: [JournalCounter: UInt64] = [:]
  package var hosts: [HostID: HostRecord] = [:]
  package var draining: Set<HostID> = []
  package var pods: [PodID: PodRecord] = [:]
  package var jobs: [JobID: JobRecord] = [:]
  /// By the name's bytes.
  package var names: [[UInt8]: NameRecord] = [:]
  package var actors: [RemoteActorID: ActorRecord] = [:]

  package init() {}

  /// No head has written anything.
  package var isEmpty: Bool { self == JournalState() }

  /// The state after one more record. Neither an epoch nor a counter ever falls.
  package mutating func apply(_ record: JournalRecord) {
    switch record {
    case .cluster(let cluster): self.cluster = cluster
    case .recovering(let isRecovering): self.isRecovering = isRecovering
    case .epoch(let epoch): self.epoch = max(self.epoch, epoch)
    case .counter(let counter, let limit): limits[counter] = max(limits[counter] ?? 0, limit)
    case .host(let record): hosts[record.host] = record
    case .hostForgotten(let host): hosts[host] = nil
    case .draining(let host, true): draining.insert(host)
    case .draining(let host, false): draining.remove(host)
    case .pod(let record): pods[record.pod] = record
    case .podForgotten(let pod): pods[pod] = nil
    case .job(let record): jobs[record.job] = record
    case .jobForgotten(let job): jobs[job] = nil
    case .name(let record): names[Array(record.name.utf8)] = record
    case .nameRemoved(let name): names[Array(name.utf8)] = nil
    case .actor(let record): actors[record.actor] = record
    case .actorForgotten(let actor): actors[actor] = nil
    }
  }

  package mutating func apply(_ records: some Sequence<JournalRecord>) { for record in records { apply(record) } }
}
