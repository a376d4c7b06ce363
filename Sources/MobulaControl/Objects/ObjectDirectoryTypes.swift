package import MobulaCore

/// A sealed replica, as its host reports it.
package struct SealedReplica: Hashable, Sendable {
  var object: ObjectID
  var geometry: ChunkGeometry
  var digest: ObjectDigest
  /// The objects whose references lie inside; they live as long as this one does.
  var contains: [ObjectID] = []
  /// Whether a process of the host holds the object. Counts as the host's hold from the
  /// moment of the seal, so that nothing can come between the two.
  var isHeld = false
  /// Whether the host does not evict it; `nil` where it does not say.
  var isPrimary: Bool?

  package init(
    object: ObjectID, geometry: ChunkGeometry, digest: ObjectDigest, contains: [ObjectID] = [], isHeld: Bool = false,
    isPrimary: Bool? = nil
  ) {
    self.isPrimary = isPrimary
    self.object = object
    self.geometry = geometry
    self.digest = digest
    self.contains = contains
    self.isHeld = isHeld
  }
}

/// What changed at a host. A host reports its changes in their order, several at a time.
package enum HostChange: Hashable, Sendable {
  case sealed(SealedReplica)
  /// The host has begun to receive the object and can serve what it has.
  case partial(ObjectID, ChunkGeometry)
  /// The host has no replica any more: evicted, abandoned or deleted.
  case gone(ObjectID)
  /// A first process of the host holds the object.
  case held(ObjectID)
  /// No process of the host holds the object any more.
  case released(ObjectID)
}

/// All that a host has, as it reports it when it registers.
struct HostInventory: Hashable, Sendable {
  var sealed: [SealedReplica] = []
  var partial: [ObjectID: ChunkGeometry] = [:]
  var holds: Set<ObjectID> = []
  /// The names that it knows; what a restarted head learns them from.
  var names: [Name: KnownName] = [:]

  var isEmpty: Bool { sealed.isEmpty && partial.isEmpty && holds.isEmpty && names.isEmpty }
}

/// A host asks where to take an object from.
package struct LocateQuestion: Hashable, Sendable {
  var id: RequestID
  /// The host that wants a replica.
  var host: HostID
  var object: ObjectID
  /// The hosts that failed it.
  var excluded: Set<HostID> = []
  /// The hosts that it takes chunks from already: it asks for others, and waits until there are.
  var known: Set<HostID> = []
  var plan = SourcePlan.relay
  /// Whether to wait for an absent host that alone has it.
  var waits = false

  package init(
    id: RequestID, host: HostID, object: ObjectID, excluded: Set<HostID> = [], known: Set<HostID> = [],
    plan: SourcePlan = .relay, waits: Bool = false
  ) {
    self.waits = waits
    self.id = id
    self.host = host
    self.object = object
    self.excluded = excluded
    self.known = known
    self.plan = plan
  }
}

package enum LocateAnswer: Hashable, Sendable {
  /// The asking host itself has every chunk.
  case local(ChunkGeometry, ObjectDigest?)
  /// Take missing chunks from these hosts. The receiver reports `partial` as soon as it can serve
  /// them on, and the end of the transfer if it ends before the object is complete.
  case sources([HostID], ChunkGeometry, ObjectDigest?)
}

enum ClaimAnswer: Hashable, Sendable {
  /// The asking host reads it from outside, alone or with others: ask for parts.
  case fill(ObjectID)
  /// The object is there, or enough hosts read it: locate it.
  case exists(ObjectID)
}

/// A host asks which part of an object to read from outside next.
package struct PartQuestion: Hashable, Sendable {
  var id: RequestID
  var host: HostID
  var object: ObjectID
}

package enum DirectoryAction: Hashable, Sendable {
  case answer(RequestID, LocateAnswer)
  case refuse(RequestID, ObjectID, LocateRefusal)
  /// Nothing holds the object any more: these hosts free their replicas.
  case drop(ObjectID, hosts: [HostID])
  /// The host's replica is the primary from now on.
  case keep(ObjectID, host: HostID)
  /// The host's replica has other bytes than the first one: it is not used, and shall be freed.
  case reportCorrupt(HostID, ObjectID)
  /// Read these chunks from outside; nothing any more for `nil`.
  case part(RequestID, Range<Int>?)
  /// Enough of the objects that somebody waits for are complete.
  case ready(RequestID, [ObjectID])
}

/// Why an object can't be had.
package enum LocateRefusal: Hashable, Sendable {
  case deleted
  /// It had wrong bytes; what is to be said of that.
  case damaged(String)
  case jobEnded
  /// Every replica is lost; the last one was at this host.
  case lost(HostID)
  /// Hosts that have it are absent, among them this one.
  case away(HostID)
  /// No host that is there has it; these have not registered since the head was restarted.
  case nowhere(unheard: [HostID])
  /// Hosts that have it failed the receiver, and there are no others.
  case sourcesFailed([HostID])
  /// It was fetched under this name, and no host has it or fetches it now: claim it again.
  case unclaimed(name: Name)
  /// The host that asked was itself declared lost.
  case receiverLost

  /// The sentence for the caller.
  ///
  /// - Parameters:
  ///   - name: turns a host into what people call it.
  ///   - absence: since when a host has been away: `35 s ago`.
  package func error(
    for object: ObjectID, name: (HostID) -> String, absence: (HostID) -> String? = { _ in nil }
  ) -> MobulaError {
    switch self {
    case .deleted:
      MobulaError(
        .notFound,
        "Object \(object) was deleted when nothing held it any more; put it again, and keep a reference or a name as long as you need it."
      )
    case .damaged(let message): MobulaError(.corrupted, message)
    case .jobEnded:
      MobulaError(
        .notFound,
        "Object \(object) went with job \(object.job), which has ended; give an object a name to keep it after its job."
      )
    case .lost(let host):
      MobulaError(
        .notFound,
        "Object \(object) is gone: its last replica was on host \(name(host)), which no longer has it; put it again, or run the task that made it again."
      )
    case .away(let host):
      MobulaError(
        .unavailable,
        "Object \(object) is on host \(name(host)), which the head lost sight of\(absence(host).map { " \($0)" } ?? ""): it can be had when that host is back; `mobula host forget` says that it won't come."
      )
    case .nowhere(let unheard) where unheard.isEmpty:
      MobulaError(.notFound, "Object \(object) is gone: no host has it any more; put it again.")
    case .nowhere(let unheard):
      MobulaError(
        .unavailable,
        "No host that is there has object \(object): \(unheard.map(name).joined(separator: ", ")) may, and did not come back since the head was restarted; it can be had when they are back."
      )
    case .sourcesFailed(let hosts):
      MobulaError(
        .unavailable,
        "No host could send object \(object): \(hosts.map(name).joined(separator: ", ")) failed; check that hosts can reach each other, and try again."
      )
    case .unclaimed(let name):
      MobulaError(
        .unavailable, "No host has \(name), or fetches it, any more; fetch it again.")
    case .receiverLost:
      MobulaError(
        .unavailable, "The host that asked for object \(object) was declared lost; try again once it has registered.")
    }
  }
}

/// What a host is told of the names of its objects.
struct ObjectNames: Hashable, Sendable {
  var given: [Name: KnownName] = [:]
  var taken: Set<Name> = []
}

/// An object as `mobula ls` shows it.
struct DirectoryEntry: Hashable, Sendable {
  var object: ObjectID
  var geometry: ChunkGeometry?
  var digest: ObjectDigest?
  var names: [Name]
  /// Hosts with every chunk, the origin first.
  var complete: [HostID]
  var partial: [HostID]
  /// Absent hosts with every chunk.
  var absent: [HostID] = []
  var holders: [HostID]
}
