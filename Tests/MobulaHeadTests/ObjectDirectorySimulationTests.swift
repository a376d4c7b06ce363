import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// The holds of a directory, as simply as they can be said: after every event, what no
/// root reaches and has existed is dead.
private struct HoldsModel {
  struct Entry {
    var replicas: Set<HostID> = []
    var holders: Set<HostID> = []
    var names: Set<Name> = []
    var contents: [ObjectID] = []
    var wasSealed = false
  }

  var entries: [ObjectID: Entry] = [:]
  var dead: Set<ObjectID> = []
  var ended: Set<JobID> = []

  /// What is dropped now: the hosts of every object that has died.
  mutating func reap() -> [ObjectID: Set<HostID>] {
    var reached: Set<ObjectID> = []
    var pending = entries.filter { object, entry in
      !entry.names.isEmpty || (!entry.holders.isEmpty && !ended.contains(object.job))
    }.map(\.key)
    while let next = pending.popLast() {
      if reached.insert(next).inserted { pending += entries[next]?.contents ?? [] }
    }
    var drops: [ObjectID: Set<HostID>] = [:]
    for (object, entry) in entries where !reached.contains(object) {
      guard entry.wasSealed || !entry.replicas.isEmpty || ended.contains(object.job) else { continue }
      if !entry.replicas.isEmpty { drops[object] = entry.replicas }
      dead.insert(object)
      entries[object] = nil
    }
    return drops
  }

  mutating func apply(_ change: HostChange, of host: HostID) -> (ObjectID, HostID)? {
    switch change {
    case .sealed(let replica):
      if dead.contains(replica.object) { return (replica.object, host) }
      entries[replica.object, default: Entry()].replicas.insert(host)
      entries[replica.object]?.wasSealed = true
      entries[replica.object]?.contents = replica.contains
      if replica.isHeld { entries[replica.object]?.holders.insert(host) }
    case .partial(let object, _):
      if dead.contains(object) { return (object, host) }
      entries[object, default: Entry()].replicas.insert(host)
    case .gone(let object): entries[object]?.replicas.remove(host)
    case .held(let object): if !dead.contains(object) { entries[object, default: Entry()].holders.insert(host) }
    case .released(let object): entries[object]?.holders.remove(host)
    }
    return nil
  }
}

@Suite struct ObjectDirectorySimulationTests {
  @Test(arguments: seeds) func objectsGoExactlyWhenNothingHoldsThem(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var directory = ObjectDirectoryStateMachine()
    var model = HoldsModel()
    let hosts = (1...4).map { host($0) }
    let objects = (0..<12).map { object(UInt64($0), job: UInt32(1 + $0 % 3)) }
    // An object contains only objects before it, always the same ones.
    let contents = objects.indices.map { index in objects[..<index].filter { _ in random.chance(15) } }
    var dropCount = 0

    for step in 0..<400 {
      var actions: [DirectoryAction]
      var expected: [ObjectID: Set<HostID>] = [:]
      let host = hosts.randomElement(using: &random)!
      let index = objects.indices.randomElement(using: &random)!
      switch Int.random(in: 0..<100, using: &random) {
      case ..<80:
        let changes = (0..<Int.random(in: 1...3, using: &random)).map { _ -> HostChange in
          let index = objects.indices.randomElement(using: &random)!
          switch Int.random(in: 0..<5, using: &random) {
          case 0: return sealed(objects[index], held: random.chance(70), contains: contents[index])
          case 1: return .partial(objects[index], geometry)
          case 2: return .gone(objects[index])
          case 3: return .held(objects[index])
          default: return .released(objects[index])
          }
        }
        for change in changes {
          if let (object, host) = model.apply(change, of: host) { expected[object, default: []].insert(host) }
        }
        actions = directory.changed(host, changes)
      case ..<88:
        let name = Name("name \(index % 3)")
        let isFree = !model.entries.contains { $0.key != objects[index] && $0.value.names.contains(name) }
        if isFree, !model.dead.contains(objects[index]) {
          model.entries[objects[index], default: .init()].names.insert(name)
        }
        actions = (try? directory.named(name, objects[index])) ?? []
      case ..<96:
        let name = Name("name \(index % 3)")
        for object in model.entries.keys { model.entries[object]?.names.remove(name) }
        actions = (try? directory.unnamed(name)) ?? []
      case ..<99:
        for object in model.entries.keys {
          model.entries[object]?.replicas.remove(host)
          model.entries[object]?.holders.remove(host)
        }
        actions = directory.hostsLost([host])
      default:
        model.ended.insert(objects[index].job)
        actions = directory.jobEnded(objects[index].job)
      }
      expected.merge(model.reap()) { $0.union($1) }
      var dropped: [ObjectID: Set<HostID>] = [:]
      for case .drop(let object, let hosts) in actions { dropped[object, default: []].formUnion(hosts) }
      try #require(dropped == expected, "seed \(seed), step \(step)")
      dropCount += dropped.count
    }
    #expect(dropCount > 0, "seed \(seed) never dropped anything")
  }

  /// Receivers that ask for sources, take chunks from whoever has them, lose links, hosts and each other:
  /// whoever is left has the object in the end, and nobody waits who could be answered.
  @Test(arguments: seeds) func everyReceiverIsServed(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var directory = ObjectDirectoryStateMachine()
    let model = object(1)
    let maker = host(1)
    let count: UInt64 = random.chance(50) ? 9 : 60
    var receivers = Set((2...count).map { host($0) })
    var progress: [HostID: Int] = [maker: 10]
    var links: [HostID: Set<HostID>] = [:]
    var reported: Set<HostID> = []
    var asking: [RequestID: HostID] = [:]
    var excluded: [HostID: Set<HostID>] = [:]
    var lastRequest: UInt64 = 0
    _ = directory.changed(maker, [sealed(model, held: true)])

    func act(_ actions: [DirectoryAction]) throws {
      for action in actions {
        switch action {
        case .answer(let id, let answer):
          let asker = asking.removeValue(forKey: id)
          let receiver = try #require(asker, "seed \(seed): nobody asked \(id)")
          guard case .sources(let sources, _, _) = answer else {
            Issue.record("seed \(seed): \(receiver) has not got it yet")
            continue
          }
          for source in sources {
            #expect(excluded[receiver]?.contains(source) != true, "seed \(seed)")
            #expect(links[receiver]?.contains(source) != true, "seed \(seed)")
            #expect(source != receiver, "seed \(seed)")
            links[receiver, default: []].insert(source)
          }
        case .refuse(let id, _, .sourcesFailed):
          let asker = asking.removeValue(forKey: id)
          let receiver = try #require(asker, "seed \(seed): nobody asked \(id)")
          excluded[receiver] = nil
        default: Issue.record("seed \(seed): unexpected \(action)")
        }
      }
      let planner = try #require(directory.records[model]?.planner)
      for (source, load) in planner.load where planner.isReady(source) {
        try #require(load <= SourcePlanner.receiversPerSource, "seed \(seed): \(source) has \(load)")
      }
      var again = directory
      let late = again.serve(model)
      try #require(late == [], "seed \(seed): somebody waits who could be served")
    }

    var steps = 0
    while receivers.contains(where: { progress[$0] != 10 }) {
      steps += 1
      try #require(steps < 60_000, "seed \(seed): receivers starve")
      let isRough = steps < 600
      guard let receiver = receivers.filter({ progress[$0] != 10 }).sorted().randomElement(using: &random) else {
        break
      }
      let sources = links[receiver] ?? []
      if !asking.values.contains(receiver), sources.count < 3, sources.isEmpty || random.chance(30) {
        lastRequest += 1
        asking[RequestID(lastRequest)] = receiver
        try act(
          directory.locate(
            question(
              RequestID(lastRequest), receiver, model, excluded: excluded[receiver] ?? [], known: sources)))
      } else if let source = sources.sorted().randomElement(using: &random) {
        if isRough, random.chance(8) {
          // The link breaks; or the receiver fails before it could report anything, and does not say so.
          links[receiver]?.remove(source)
          excluded[receiver, default: []].insert(source)
          if !reported.contains(receiver), receivers.count > 3, random.chance(50) {
            receivers.remove(receiver)
            links[receiver] = nil
            if let id = asking.first(where: { $0.value == receiver })?.key {
              asking[id] = nil
              try act(directory.cancelLocate(id))
            }
            try act(directory.transferEnded(receiver: receiver, object: model))
          }
        } else if reported.insert(receiver).inserted {
          try act(directory.changed(receiver, [.partial(model, geometry)]))
        } else if progress[receiver, default: 0] < progress[source, default: 0] {
          progress[receiver, default: 0] += 1
          if progress[receiver] == 10 {
            links[receiver] = nil
            if let id = asking.first(where: { $0.value == receiver })?.key {
              asking[id] = nil
              try act(directory.cancelLocate(id))
            }
            try act(directory.changed(receiver, [sealed(model)]))
          }
        }
      } else if isRough, random.chance(3) {
        let id = asking.first { $0.value == receiver }!.key
        asking[id] = nil
        try act(directory.cancelLocate(id))
      } else if isRough, receivers.count > 3, random.chance(2) {
        receivers.remove(receiver)
        let id = asking.first { $0.value == receiver }!.key
        progress[receiver] = nil
        // Its question is refused; whom it fed finds its link broken.
        let actions = directory.hostsLost([receiver])
        #expect(actions.contains(.refuse(id, model, .receiverLost)), "seed \(seed)")
        asking[id] = nil
        links[receiver] = nil
        for other in links.keys { links[other]!.remove(receiver) }
        try act(actions.filter { $0 != .refuse(id, model, .receiverLost) })
      }
    }
    #expect(directory.requests.isEmpty && asking.isEmpty, "seed \(seed): somebody still waits")
    let planner = try #require(directory.records[model]?.planner)
    #expect(planner.given.isEmpty && planner.load.isEmpty, "seed \(seed): \(planner)")
    #expect(planner.room == planner.complete.count * SourcePlanner.receiversPerSource, "seed \(seed)")
    #expect(Set(planner.complete) == receivers.union([maker]), "seed \(seed)")
  }
}
