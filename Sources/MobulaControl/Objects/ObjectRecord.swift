import MobulaCore

/// What the head knows of one object.
///
/// There can be millions: what few of them need lies apart, and what most have one of needs no memory of its own.
struct ObjectRecord: Sendable {
  /// Known from the first replica on; kept after the last, for messages.
  var geometry: ChunkGeometry?
  /// What the first complete replica's bytes are; every other must agree with it.
  var digest: ObjectDigest?
  var planner = SourcePlanner()
  /// The host whose replica is not evicted.
  var primary: HostID?
  /// Hosts with a process that holds the object.
  var holders: Few<HostID> = []
  var names: Few<Name> = []
  /// What few objects have: one element, or none. An array, since that is copied when it is shared and changed.
  private var rest: [Rest] = []
  /// Whether it was there before this head, so that hosts which have not registered yet may hold it.
  var isInherited = false

  private struct Rest: Sendable {
    var absent: Set<HostID> = []
    var contents: [ObjectID] = []
    var containers: Set<ObjectID> = []
    var claimedName: Name?
    var checksum: ExpectedChecksum?
    var lastHost: HostID?
    var waiting: [RequestID] = []
    var fill: FillPlanner?
    var readers: [RequestID] = []
    var watchers: Set<RequestID> = []

    var isEmpty: Bool {
      absent.isEmpty && contents.isEmpty && containers.isEmpty && claimedName == nil && checksum == nil
        && lastHost == nil && waiting.isEmpty && fill == nil && readers.isEmpty && watchers.isEmpty
    }
  }

  /// Absent hosts that have every chunk: nobody can get them there now.
  var absent: Set<HostID> {
    get { rest.isEmpty ? [] : rest[0].absent }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].absent
    }
  }
  /// Objects inside this one, once it is sealed.
  var contents: [ObjectID] {
    get { rest.isEmpty ? [] : rest[0].contents }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].contents
    }
  }
  /// Objects that have this one inside.
  var containers: Set<ObjectID> {
    get { rest.isEmpty ? [] : rest[0].containers }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].containers
    }
  }
  /// The name under which it was claimed: what can give it again, as `s3://bucket/key#etag`.
  var claimedName: Name? {
    get { rest.isEmpty ? nil : rest[0].claimedName }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].claimedName
    }
  }
  /// What its bytes are compared with, where they come from outside.
  var checksum: ExpectedChecksum? {
    get { rest.isEmpty ? nil : rest[0].checksum }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].checksum
    }
  }
  /// The host that had the last complete replica, once there is none.
  var lastHost: HostID? {
    get { rest.isEmpty ? nil : rest[0].lastHost }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].lastHost
    }
  }
  /// Who waits for it, in the order of asking.
  var waiting: [RequestID] {
    get { rest.isEmpty ? [] : rest[0].waiting }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].waiting
    }
  }
  /// Which host reads what of it from outside, until one has all of it.
  var fill: FillPlanner? {
    get { rest.isEmpty ? nil : rest[0].fill }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].fill
    }
  }
  /// Who waits for a part to read, in the order of asking.
  var readers: [RequestID] {
    get { rest.isEmpty ? [] : rest[0].readers }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].readers
    }
  }
  /// Who waits for it among others.
  var watchers: Set<RequestID> {
    get { rest.isEmpty ? [] : rest[0].watchers }
    _modify {
      if rest.isEmpty { rest.append(Rest()) }
      yield &rest[0].watchers
    }
  }

  /// Gives back what it does not need any more.
  mutating func compact() { if !rest.isEmpty, rest[0].isEmpty { rest = [] } }

  /// Whether there is one host that has every chunk, or some that get them from outside.
  var hasRoot: Bool { planner.hasRoot }

  /// Whether anybody ever had chunks of it.
  var hasExisted: Bool { !planner.isEmpty || lastHost != nil || !absent.isEmpty }

  /// Whether no host has, or gets, any of it, be it there or away.
  var isNowhere: Bool { planner.isEmpty && absent.isEmpty && fill == nil && lastHost == nil && holders.isEmpty }

  /// Whether there is nothing to remember.
  var isBlank: Bool {
    !hasExisted && holders.isEmpty && names.isEmpty && containers.isEmpty && waiting.isEmpty
      && readers.isEmpty && watchers.isEmpty && planner.given.isEmpty
  }

  /// Whether a replica of these bytes can't be one of this object. Once no replica is left, any may be.
  func contradicts(_ geometry: ChunkGeometry, digest: ObjectDigest? = nil) -> Bool {
    if !planner.isEmpty, self.geometry != geometry { return true }
    guard let digest, let known = self.digest, planner.hasComplete else { return false }
    return known != digest
  }

  mutating func removeReplica(of host: HostID) {
    let wasLast = planner.isOnlyComplete(host)
    planner.removeReplica(of: host)
    planner.setFills(host, false)
    if !rest.isEmpty {
      fill?.lost(host)
      absent.remove(host)
    }
    if primary == host { primary = nil }
    if wasLast { lastHost = host }
  }

  /// The host is gone, with all that it had.
  mutating func lose(_ host: HostID) {
    let wasOnly = absent == [host] && !planner.hasComplete
    removeReplica(of: host)
    holders.remove(host)
    if wasOnly { lastHost = host }
  }

  /// A host has all of it: nobody reads it from outside, and it is not lost.
  mutating func isThere(at host: HostID) {
    if rest.isEmpty { return }
    fill = nil
    lastHost = nil
    absent.remove(host)
    compact()
  }

  /// The host is away, and keeps what it has.
  mutating func setAbsent(_ host: HostID) {
    let hasAll = planner.isComplete(host)
    removeReplica(of: host)
    if hasAll { absent.insert(host) }
  }
}

/// The objects deleted last: enough of them to tell a late caller what happened.
struct Tombstones: Sendable {
  private var members: Set<ObjectID> = []
  /// In order, until there are more than fit.
  private(set) var order: [ObjectID] = []
  /// Of those that had wrong bytes, what was wrong.
  private var damages: [ObjectID: String] = [:]
  private var oldest = 0
  let capacity: Int

  init(capacity: Int) { self.capacity = capacity }

  func contains(_ object: ObjectID) -> Bool { members.contains(object) }

  func damage(of object: ObjectID) -> String? { damages[object] }

  mutating func insert(_ object: ObjectID, damage: String? = nil) {
    if let damage { damages[object] = damage }
    guard members.insert(object).inserted else { return }
    if order.count < capacity {
      order.append(object)
    } else {
      members.remove(order[oldest])
      damages[order[oldest]] = nil
      order[oldest] = object
      oldest = (oldest + 1) % capacity
    }
  }
}
