import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaHead

/// The holds of a directory, as simply as they can be said: after every event, what no
/// root reaches and has existed is dead.
private struct HoldsModel {
  struct Entry {
    var replicas: Set<HostID> = []
    var holders: Set<HostID> = []
    var names: Set<String> = []
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
        let name = "name \(index % 3)"
        let isFree = !model.entries.contains { $0.key != objects[index] && $0.value.names.contains(name) }
        if isFree, !model.dead.contains(objects[index]) {
          model.entries[objects[index], default: .init()].names.insert(name)
        }
        actions = (try? directory.named(name, objects[index])) ?? []
      case ..<96:
        let name = "name \(index % 3)"
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

  /// Receivers with a link to a source each, chunks that only move down, links that break,
  /// hosts that are lost, or fail without a word: whoever is left has the object in the end.
  @Test(arguments: seeds) func everyReceiverIsServed(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var directory = ObjectDirectoryStateMachine()
    let model = object(1)
    let maker = host(1)
    var receivers = Set((2...9).map { host($0) })
    var progress: [HostID: Int] = [maker: 10]
    var links: [HostID: HostID] = [:]
    var reported: Set<HostID> = []
    var asking: [RequestID: HostID] = [:]
    var excluded: [HostID: Set<HostID>] = [:]
    var lastRequest: UInt64 = 0
    var now = Duration.zero
    _ = directory.changed(maker, [sealed(model, held: true)])

    func requireNoCircle(_ sources: [HostID: HostID], _ what: String) throws {
      for start in sources.keys {
        var at = start
        for _ in sources { at = sources[at] ?? at }
        try #require(sources[at] == nil, "seed \(seed): a circle of \(what) at \(start)")
      }
    }

    func act(_ actions: [DirectoryAction]) throws {
      for action in actions {
        switch action {
        case .answer(let id, let answer):
          let asker = asking.removeValue(forKey: id)
          let receiver = try #require(asker, "seed \(seed): nobody asked \(id)")
          guard case .source(let source, _, _) = answer else {
            Issue.record("seed \(seed): \(receiver) has not got it yet")
            continue
          }
          #expect(excluded[receiver]?.contains(source) != true, "seed \(seed)")
          links[receiver] = source
        case .refuse(let id, _, .sourcesFailed):
          let asker = asking.removeValue(forKey: id)
          let receiver = try #require(asker, "seed \(seed): nobody asked \(id)")
          excluded[receiver] = nil
        default: Issue.record("seed \(seed): unexpected \(action)")
        }
      }
      try requireNoCircle(directory.records[model]?.graph.sources ?? [:], "sources")
      // What hosts do may differ from what the directory knows, but not so.
      try requireNoCircle(links, "links")
      var again = directory
      let late = again.serve(model)
      try #require(late == [], "seed \(seed): somebody waits who could be served")
    }

    var steps = 0
    while receivers.contains(where: { progress[$0] != 10 }) {
      steps += 1
      try #require(steps < 20_000, "seed \(seed): receivers starve")
      let isRough = steps < 300
      now += .milliseconds(100)
      directory.advance(to: now)
      if let expiry = directory.nextExpiry, expiry <= now { try act(directory.tick(now)) }
      guard let receiver = receivers.filter({ progress[$0] != 10 }).sorted().randomElement(using: &random) else {
        break
      }
      if let source = links[receiver] {
        if isRough, random.chance(8) {
          // The link breaks, or the receiver fails before it could report anything.
          links[receiver] = nil
          if !reported.contains(receiver), receivers.count > 3, random.chance(50) {
            // It has no room, and does not say so.
            receivers.remove(receiver)
          } else if random.chance(50) {
            excluded[receiver, default: []].insert(source)
          } else {
            try act(directory.transferEnded(receiver: receiver, source: source, object: model))
          }
        } else if reported.insert(receiver).inserted {
          try act(directory.changed(receiver, [.partial(model, geometry)]))
        } else if progress[receiver, default: 0] < progress[source, default: 0] {
          progress[receiver, default: 0] += 1
          if progress[receiver] == 10 {
            links[receiver] = nil
            try act(directory.changed(receiver, [sealed(model)]))
          }
        } else if random.chance(5), !isRough || progress[source] == nil {
          // A source that stalls is given up.
          links[receiver] = nil
          excluded[receiver, default: []].insert(source)
        }
      } else if !asking.values.contains(receiver) {
        lastRequest += 1
        asking[RequestID(lastRequest)] = receiver
        try act(
          directory.locate(
            question(RequestID(lastRequest), receiver, model, excluded: excluded[receiver] ?? [])))
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
        for (other, source) in links where source == receiver { links[other] = nil }
        try act(actions.filter { $0 != .refuse(id, model, .receiverLost) })
      }
    }
    #expect(directory.requests.isEmpty && asking.isEmpty, "seed \(seed): somebody still waits")
    try act(directory.tick(now + .seconds(10)))
    let graph = try #require(directory.records[model]?.graph)
    #expect(graph.sources.isEmpty && graph.deadlines.isEmpty, "seed \(seed): \(graph)")
    #expect(directory.nextExpiry == nil, "seed \(seed)")
    #expect(Set(graph.complete) == receivers.union([maker]), "seed \(seed)")
  }
}
