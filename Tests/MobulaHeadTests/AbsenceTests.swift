import MobulaCore
import MobulaTestKit
import MobulaWire
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// What is absent is not gone.
@Suite struct AbsenceTests {
  let a = host(1), b = host(2), c = host(3)
  let model = object(1), part = object(2)

  private func inventory(_ objects: [ObjectID], holds: Set<ObjectID> = []) -> HostInventory {
    HostInventory(
      sealed: objects.map { SealedReplica(object: $0, geometry: geometry, digest: digest()) }, holds: holds)
  }

  @Test func whatAnAbsentHostHoldsStays() {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true), sealed(part, held: true)])
    _ = directory.changed(b, [.held(model)])
    #expect(directory.hostsAbsent([b]) == [])
    #expect(directory.changed(a, [.released(model)]) == [])
    #expect(directory.hostsAbsent([a]) == [])
    #expect(directory.listed().map(\.absent) == [[a], [a]])
    // It goes on with what it has; what it let go of meanwhile goes.
    #expect(directory.registered(a, inventory([model, part])) == [.drop(part, hosts: [a])])
    #expect(directory.registered(b, HostInventory()) == [.drop(model, hosts: [a])])
    #expect(directory.records.isEmpty)
  }

  @Test func whoseLastReplicaIsAwaySaysSoOrIsWaitedFor() throws {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true)])
    _ = directory.hostsAbsent([a])
    #expect(directory.locate(question(1, b, model)) == [.refuse(1, model, .away(a))])
    let error = LocateRefusal.away(a).error(for: model, name: { _ in "first" }, absence: { _ in "35 s ago" })
    #expect(error.code == .unavailable)
    #expect(error.message.contains("on host first") && error.message.contains("35 s ago"))
    var patient = question(2, b, model)
    patient.waits = true
    #expect(directory.locate(patient) == [])
    #expect(directory.registered(a, inventory([model], holds: [model])) == [answer(2, a)])
    // What the host itself has lost is lost.
    _ = directory.changed(b, [.held(model)])
    _ = directory.hostsAbsent([a])
    #expect(directory.registered(a, HostInventory()) == [])
    #expect(directory.locate(question(3, b, model)) == [.refuse(3, model, .lost(a))])
  }

  @Test func whatARetiredHostHadIsGone() {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true), sealed(part, held: true)])
    _ = directory.changed(b, [.held(model)])
    _ = directory.hostsAbsent([a])
    #expect(directory.hostsLost([a]) == [])
    #expect(directory.records[part] == nil)
    #expect(directory.locate(question(1, b, model)) == [.refuse(1, model, .lost(a))])
  }

  @Test func theRoleOfThePrimaryMoves() throws {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true)])
    _ = try directory.named("model", model)
    for host in [b, c] {
      let replica = SealedReplica(object: model, geometry: geometry, digest: digest(), isPrimary: false)
      #expect(directory.changed(host, [.sealed(replica)]) == [])
    }
    #expect(directory.hostsAbsent([a]) == [.keep(model, host: b)])
    #expect(directory.changed(b, [.gone(model)]) == [.keep(model, host: c)])
    // A host that has forgotten its role is told again.
    let forgetful = SealedReplica(object: model, geometry: geometry, digest: digest(), isPrimary: false)
    #expect(directory.registered(c, HostInventory(sealed: [forgetful])) == [.keep(model, host: c)])
    // What comes from outside can come again.
    let version: Name = "s3://models/one#e1"
    _ = try directory.claim(version, geometry: geometry, by: a, fresh: part)
    let read = SealedReplica(object: part, geometry: geometry, digest: digest(), isPrimary: false)
    #expect(directory.changed(a, [.sealed(read)]) == [])
  }

  @Test func everyHostWithAReplicaKnowsTheNames() throws {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true)])
    _ = try directory.named("model", model)
    _ = directory.changed(b, [sealed(model)])
    let known = ObjectNames(given: ["model": KnownName(model, .given)])
    #expect(directory.takeNews() == [a: known, b: known])
    #expect(directory.takeNews() == [:])
    _ = try directory.unnamed("model")
    #expect(directory.takeNews() == [a: ObjectNames(taken: ["model"]), b: ObjectNames(taken: ["model"])])
  }

  /// The machine of the head is gone with the host that made the model: others that have it bring the name.
  @Test func aHeadThatKnowsNothingLearnsNamesFromAnyHost() {
    var directory = ObjectDirectoryStateMachine()
    directory.beginSettling()
    var named = inventory([model])
    named.names = ["model": KnownName(model, .given)]
    _ = directory.registered(b, named)
    _ = directory.registered(c, inventory([model]))
    #expect(directory.settled() == [])
    #expect(directory.names == ["model": model])
    #expect(directory.takeNews()[c]?.given.keys.sorted() == ["model"])
  }

  @Test func whatAMemberMayHoldStaysUntilItHasSpoken() {
    var directory = ObjectDirectoryStateMachine()
    directory.beginSettling()
    directory.expect([a, b])
    _ = directory.registered(a, inventory([model, part], holds: [part]))
    #expect(directory.settled() == [])
    // It has been there before this head: b may hold it.
    #expect(directory.changed(a, [.released(part)]) == [])
    // This has not.
    #expect(
      directory.changed(a, [sealed(object(3), held: true), .released(object(3))]) == [.drop(object(3), hosts: [a])])
    #expect(directory.registered(b, HostInventory(holds: [part])) == [.drop(model, hosts: [a])])
    #expect(directory.changed(b, [.released(part)]) == [.drop(part, hosts: [a])])
  }

  /// Hosts come and go while their processes take and let go: nothing that one holds is ever dropped, and in the end
  /// everything is.
  @Test(arguments: seeds) func nothingThatIsHeldIsDropped(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var directory = ObjectDirectoryStateMachine()
    let hosts = (1...4).map { host($0) }
    var here = Set(hosts)
    var holds: [HostID: Set<ObjectID>] = [:]
    var replicas: [HostID: Set<ObjectID>] = [:]
    var number: UInt64 = 0

    func act(_ actions: [DirectoryAction]) throws {
      for case .drop(let object, let targets) in actions {
        for host in hosts {
          try #require(holds[host]?.contains(object) != true, "seed \(seed): \(host) holds \(object), which is dropped")
        }
        for target in targets { replicas[target]?.remove(object) }
      }
    }
    func report(_ host: HostID, _ changes: [HostChange]) throws {
      if here.contains(host) { try act(directory.changed(host, changes)) }
    }
    func register(_ host: HostID) throws {
      here.insert(host)
      try act(
        directory.registered(host, inventory(replicas[host, default: []].sorted(), holds: holds[host] ?? [])))
    }

    for _ in 0..<600 {
      let host = hosts.randomElement(using: &random)!
      switch Int.random(in: 0..<100, using: &random) {
      case ..<20:
        number += 1
        holds[host, default: []].insert(object(number))
        replicas[host, default: []].insert(object(number))
        try report(host, [sealed(object(number), held: true)])
      case ..<40:
        // A reference is passed on while its sender holds it; both are there, or are one host.
        let sender = hosts.randomElement(using: &random)!
        guard here.isSuperset(of: [sender, host]),
          let object = holds[sender, default: []].sorted().randomElement(using: &random)
        else { continue }
        holds[host, default: []].insert(object)
        try report(host, [.held(object)])
      case ..<60:
        guard let object = holds[host, default: []].sorted().randomElement(using: &random) else { continue }
        holds[host]?.remove(object)
        try report(host, [.released(object)])
      case ..<70:
        guard here.contains(host), let object = holds[host, default: []].sorted().randomElement(using: &random),
          here.contains(where: { replicas[$0]?.contains(object) == true })
        else { continue }
        replicas[host, default: []].insert(object)
        try report(host, [sealed(object)])
      case ..<82:
        guard here.remove(host) != nil else { continue }
        try act(directory.hostsAbsent([host]))
      case ..<92:
        // Back, or registered once more than it had to; or its process was started again.
        if here.contains(host), random.chance(50) { try act(directory.hostRestarted(host)) }
        try register(host)
      case ..<94:
        guard !here.contains(host) else { continue }
        // It will end its processes before it comes back.
        holds[host] = []
        replicas[host] = []
        try act(directory.hostsLost([host]))
      default: try act(directory.advance(directory.records.keys.sorted()))
      }
    }
    for host in hosts where !here.contains(host) { try register(host) }
    for host in hosts {
      let held = holds.updateValue([], forKey: host) ?? []
      try report(host, held.sorted().map { .released($0) })
    }
    #expect(directory.records.isEmpty, "seed \(seed): \(directory.records.keys.sorted())")
    #expect(replicas.values.allSatisfy { $0.isEmpty }, "seed \(seed): \(replicas)")
  }
}
