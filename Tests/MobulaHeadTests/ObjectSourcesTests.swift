import MobulaCore
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct ObjectSourcesTests {
  let a = host(1), b = host(2), c = host(3), d = host(4)
  let model = object(1)

  private func directory(at maker: HostID) -> ObjectDirectoryStateMachine {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(maker, [sealed(model, held: true)])
    return directory
  }

  @Test func receiversGetTheMakerAndEachOther() {
    var directory = directory(at: a)
    #expect(directory.locate(question(1, a, model)) == [.answer(1, .local(geometry, digest()))])
    #expect(directory.locate(question(2, b, model)) == [answer(2, a)])
    // b can't serve yet.
    #expect(directory.locate(question(3, c, model)) == [answer(3, a)])
    // Each asks for more, and waits until there is one that it does not know.
    #expect(directory.locate(question(4, b, model, known: [a])) == [])
    #expect(directory.locate(question(5, c, model, known: [a])) == [])
    #expect(directory.changed(b, [.partial(model, geometry)]) == [answer(5, b)])
    #expect(directory.changed(c, [.partial(model, geometry)]) == [answer(4, c)])
    // Whoever comes later gets all of them at once.
    #expect(sources(directory.locate(question(6, d, model))) == [6: [a, b, c]])
  }

  @Test func aSourceIsGivenToSoManyReceiversOnly() {
    var directory = directory(at: a)
    let receivers = (10..<22).map { host($0) }
    var given: [RequestID: Set<HostID>] = [:]
    for (number, receiver) in receivers.enumerated() {
      given.merge(sources(directory.locate(question(RequestID(UInt64(number)), receiver, model)))) { $0.union($1) }
    }
    #expect(given.count == SourcePlanner.receiversPerSource)
    // The first that can serve makes room for the others.
    given.merge(sources(directory.changed(receivers[0], [.partial(model, geometry)]))) { $0.union($1) }
    #expect(given.count == 12)
    #expect(given[11] == [receivers[0]])
    // One that is complete takes nothing from anybody any more.
    #expect(directory.locate(question(50, d, model, known: [receivers[0]])) == [])
    #expect(directory.changed(receivers[1], [sealed(model)]).contains(answer(50, receivers[1])))
    #expect(sources(directory.locate(question(51, d, model, known: [receivers[0], receivers[1]]))) == [51: [a]])
  }

  @Test func theOriginServesWhoeverAsksIt() {
    var directory = directory(at: a)
    for number in 2...20 as ClosedRange<UInt64> {
      let id = RequestID(number)
      #expect(directory.locate(question(id, host(number), model, plan: .origin)) == [answer(id, a)])
      #expect(directory.changed(host(number), [.partial(model, geometry)]) == [])
    }
    #expect(directory.changed(b, [sealed(model)]) == [])
    #expect(directory.locate(question(30, host(25), model, plan: .origin)) == [answer(30, a)])
    #expect(directory.locate(question(31, host(25), model, excluded: [a], plan: .origin)) == [answer(31, b)])
  }

  @Test func aLostMakerIsNoEndWhileOthersHaveChunks() {
    var directory = directory(at: a)
    for receiver in [b, c] {
      _ = directory.locate(question(1, receiver, model))
      _ = directory.changed(receiver, [.partial(model, geometry), .held(model)])
    }
    #expect(directory.hostsLost([a]) == [])
    #expect(directory.locate(question(2, b, model, excluded: [a])) == [answer(2, c)])
    // They may have everything together, and they may not: b must know.
    #expect(directory.locate(question(3, b, model, excluded: [a], known: [c])) == [.refuse(3, model, .lost(a))])
    #expect(directory.changed(c, [sealed(model)]) == [])
    #expect(directory.locate(question(4, b, model, excluded: [a], known: [c])) == [])
  }

  @Test func whoeverFailedIsNotGivenAgain() {
    var directory = directory(at: a)
    _ = directory.changed(b, [.partial(model, geometry)])
    #expect(directory.locate(question(1, c, model, excluded: [a])) == [answer(1, b)])
    #expect(
      directory.locate(question(2, c, model, excluded: [a, b])) == [.refuse(2, model, .sourcesFailed([a, b]))])
    // With others that it knows, it waits.
    #expect(directory.locate(question(3, c, model, excluded: [a], known: [b])) == [])
    #expect(directory.changed(d, [.partial(model, geometry)]) == [answer(3, d)])
  }

  @Test func whoGivesUpMakesRoom() {
    var directory = directory(at: a)
    for number in 10..<18 as Range<UInt64> { _ = directory.locate(question(RequestID(number), host(number), model)) }
    #expect(directory.locate(question(1, b, model)) == [])
    #expect(directory.transferEnded(receiver: host(10), object: model) == [answer(1, a)])
    #expect(directory.locate(question(2, c, model)) == [])
    #expect(directory.hostsLost([host(11)]) == [answer(2, a)])
  }

  @Test func anObjectNeverHeardOfIsWaitedFor() {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.locate(question(1, b, model)) == [])
    #expect(directory.locate(question(2, c, model)) == [])
    #expect(directory.cancelLocate(2) == [])
    #expect(directory.changed(a, [sealed(model, held: true)]) == [answer(1, a)])
    #expect(directory.cancelLocate(1) == [])
  }

  @Test func aLostObjectIsSaidToBeLost() {
    var directory = directory(at: a)
    _ = directory.changed(b, [.held(model)])
    #expect(directory.hostsLost([a]) == [])
    #expect(directory.locate(question(1, b, model)) == [.refuse(1, model, .lost(a))])
    let error = LocateRefusal.lost(a).error(for: model) { _ in "first" }
    #expect(error.code == .notFound)
    #expect(error.message.contains("its last replica was on host first") && error.message.contains("\(model)"))
    // A host that was cut off may bring it back.
    #expect(directory.changed(a, [sealed(model)]) == [])
    #expect(directory.locate(question(2, b, model)) == [answer(2, a)])
  }

  @Test func severalHostsReadWhatTheyClaim() throws {
    var directory = ObjectDirectoryStateMachine()
    let name: Name = "s3://models/one#e1"
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: model) == .fill(model))
    #expect(try directory.claim(name, geometry: geometry, by: b, fresh: object(2)) == .fill(model))
    #expect(throws: MobulaError.self) {
      var again = directory
      _ = again.changed(a, [.partial(model, geometry)])
      _ = try again.claim(name, geometry: otherGeometry, by: b, fresh: object(2))
    }
    #expect(directory.locate(question(1, b, model)) == [])
    #expect(directory.locate(question(2, c, model)) == [])
    #expect(directory.changed(a, [.partial(model, geometry)]) == [answer(1, a, nil), answer(2, a, nil)])
    #expect(sources(directory.changed(b, [.partial(model, geometry)])) == [:])
    // One of the two is lost: the other reads on.
    #expect(directory.hostsLost([a]) == [])
    #expect(directory.locate(question(3, c, model, excluded: [a])) == [answer(3, b, nil)])
    #expect(directory.changed(b, [sealed(model)]) == [])
    #expect(try directory.claim(name, geometry: geometry, by: c, fresh: object(3)) == .exists(model))
    // Nobody holds it, but it has a name.
    #expect(try directory.unnamed(name) == [.drop(model, hosts: [b])])
  }

  @Test func whatNobodyReadsAnyMoreIsClaimedAgain() throws {
    var directory = ObjectDirectoryStateMachine()
    let name: Name = "s3://models/one#e1"
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: model) == .fill(model))
    _ = directory.changed(a, [.partial(model, geometry)])
    _ = directory.changed(b, [.partial(model, geometry)])
    #expect(directory.partsFailed(a, model) == [])
    #expect(directory.locate(question(3, b, model, excluded: [a])) == [.refuse(3, model, .unclaimed(name: name))])
    #expect(try directory.claim(name, geometry: geometry, by: b, fresh: object(3)) == .fill(model))
  }

  /// Two parts of one chunk each.
  @Test func eachPartIsReadByOneHost() throws {
    var directory = ObjectDirectoryStateMachine()
    let geometry = try ChunkGeometry(objectSize: 3 << 20, chunkSize: 2 << 20)
    let name: Name = "s3://models/one#e1"
    func take(_ id: UInt64, _ host: HostID, finished: Range<Int>? = nil, at seconds: Double = 0) -> [DirectoryAction] {
      directory.takePart(
        PartQuestion(id: RequestID(id), host: host, object: model), finished: finished, geometry: geometry,
        now: .seconds(seconds))
    }
    for host in [a, b, c] {
      #expect(try directory.claim(name, geometry: geometry, by: host, fresh: model) == .fill(model))
    }
    #expect(take(1, a) == [.part(1, 0..<1)])
    #expect(take(2, b) == [.part(2, 1..<2)])
    #expect(take(3, c) == [])
    #expect(take(4, b, finished: 1..<2, at: 1) == [])
    // What a host leaves undone is for who waits longest.
    #expect(directory.partsFailed(a, model) == [.part(3, 0..<1)])
    // What a lost host has read is read again.
    #expect(directory.hostsLost([b]) == [.part(4, nil)])
    #expect(take(5, c, finished: 0..<1, at: 2) == [.part(5, 1..<2)])
    #expect(take(6, a, at: 2) == [])
    #expect(directory.changed(c, [sealed(model, geometry: geometry)]) == [.part(6, nil)])
    #expect(take(7, a) == [.part(7, nil)])
  }

  /// Small objects: who claims one first reads all of it, and nobody waits for those that were given nothing.
  @Test func aClaimWithItsPart() throws {
    var directory = ObjectDirectoryStateMachine()
    let name: Name = "s3://models/one#e1"
    for host in [a, b] {
      #expect(try directory.claim(name, geometry: geometry, by: host, fresh: model) == .fill(model))
      let part = directory.firstPart(of: model, for: host, now: .zero)
      #expect(part == (host == a ? 0..<geometry.count : nil))
    }
    #expect(directory.records[model]?.planner.fillers == [a])
    // Another call of the first one's takes nothing away from it.
    #expect(directory.firstPart(of: model, for: a, now: .zero) == nil)
    #expect(directory.records[model]?.planner.fillers == [a])
    #expect(directory.locate(question(1, c, model)) == [])
    var failed = directory
    #expect(failed.partsFailed(a, model) == [.refuse(1, model, .unclaimed(name: name))])
    // Whoever comes back reads it then.
    #expect(try failed.claim(name, geometry: geometry, by: b, fresh: object(2)) == .fill(model))
    #expect(failed.firstPart(of: model, for: b, now: .zero) == 0..<geometry.count)
    #expect(directory.changed(a, [sealed(model)]) == [answer(1, a)])
    #expect(directory.records[model]?.planner.fillers == [])
  }

  @Test func aRestartedHostHasReadNothing() throws {
    var directory = ObjectDirectoryStateMachine()
    for host in [a, b] { _ = try directory.claim("s3://models/one#e1", geometry: geometry, by: host, fresh: model) }
    _ = directory.changed(a, [.partial(model, geometry)])
    let first = PartQuestion(id: 1, host: a, object: model)
    guard case .part(_, let chunks?)? = directory.takePart(first, finished: nil, geometry: geometry, now: .zero).first
    else {
      Issue.record("nothing is given")
      return
    }
    let next = PartQuestion(id: 2, host: a, object: model)
    _ = directory.takePart(next, finished: chunks, wantsMore: false, geometry: geometry, now: .zero)
    #expect(directory.hostRestarted(a) == [])
    _ = directory.registered(a, HostInventory())
    #expect(directory.records[model]?.planner.isReady(a) == false)
    #expect(directory.records[model]?.planner.fillers == [b])
    let other = PartQuestion(id: 3, host: b, object: model)
    #expect(directory.takePart(other, finished: nil, geometry: geometry, now: .zero) == [.part(3, chunks)])
  }

  @Test func aNewVersionTakesTheName() throws {
    var directory = ObjectDirectoryStateMachine()
    let url: Name = "s3://models/one"
    _ = try directory.claim(url + "#e1", geometry: geometry, by: a, fresh: model)
    #expect(try directory.named(url, model, claim: 1) == [])
    _ = directory.changed(a, [sealed(model)])
    let next = object(2)
    #expect(try directory.claim(url + "#e2", geometry: geometry, by: a, fresh: next) == .fill(next))
    #expect(throws: MobulaError.self) {
      var strict = directory
      _ = try strict.named(url, next)
    }
    // Held, the old one would stay.
    var held = directory
    _ = held.changed(b, [.held(model)])
    #expect(try held.named(url, next, claim: 2) == [])
    #expect(try directory.named(url, next, claim: 2) == [.drop(model, hosts: [a])])
    #expect(directory.names == [url: next, url + "#e2": next])
    #expect(try directory.named(url, next, claim: 2) == [])
  }

  @Test func aVersionThatWasClaimedBeforeDoesNotTakeTheNameBack() throws {
    var directory = ObjectDirectoryStateMachine()
    let (url, next): (Name, ObjectID) = ("s3://models/one", object(2))
    _ = try directory.claim(url + "#e1", geometry: geometry, by: a, fresh: model)
    _ = try directory.claim(url + "#e2", geometry: geometry, by: b, fresh: next)
    // The host that claimed first took its time to make room.
    #expect(try directory.named(url, next, claim: 2) == [])
    _ = directory.changed(a, [.held(model)])
    #expect(try directory.named(url, model, claim: 1) == [])
    #expect(directory.names == [url: next, url + "#e2": next])
    _ = directory.changed(a, [sealed(model)])
    // What is there again, in S3, is claimed later.
    #expect(try directory.named(url, model, claim: 3) == [])
    #expect(directory.names[url] == model)
  }

  @Test(arguments: [false, true]) func aRestartedHeadTakesTheNewestVersion(newestFirst: Bool) throws {
    var directory = ObjectDirectoryStateMachine()
    directory.beginSettling()
    let (url, next): (Name, ObjectID) = ("s3://models/one", object(2))
    let old = HostInventory(
      sealed: [SealedReplica(object: model, geometry: geometry, digest: digest())],
      names: [url: KnownName(model, .url(claim: 5)), url + "#e1": KnownName(model, .version)])
    let new = HostInventory(
      sealed: [SealedReplica(object: next, geometry: geometry, digest: digest())],
      names: [url: KnownName(next, .url(claim: 9)), url + "#e2": KnownName(next, .version)])
    for (host, inventory) in newestFirst ? [(b, new), (a, old)] : [(a, old), (b, new)] {
      _ = directory.registered(host, inventory)
    }
    #expect(directory.names == [url: next, url + "#e2": next])
    #expect(directory.numberClaim() == 10)
    #expect(directory.numberClaim() == 11)
    // Nothing holds the older one.
    #expect(directory.settled() == [.drop(model, hosts: [a])])
  }

  /// Of several hosts that have it each is as good; one that reads a part of it does not have all.
  @Test func whoHasAllOfAnObject() throws {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.wholeSource(of: model, besides: a) == nil)
    _ = try directory.claim("s3-version:s3://models/one#e1", geometry: geometry, by: a, fresh: model)
    #expect(directory.wholeSource(of: model, besides: b) == nil, "nobody reads it yet")
    _ = directory.firstPart(of: model, for: a, now: .zero)
    #expect(directory.wholeSource(of: model, besides: b) == a)
    #expect(directory.wholeSource(of: model, besides: a) == nil)
    _ = directory.changed(b, [sealed(model, held: false)])
    #expect(directory.wholeSource(of: model, besides: a) == b)
    #expect(directory.wholeSource(of: model, besides: b) == nil)
  }

  @Test func aFailedClaimLeavesNothingBehind() throws {
    var directory = ObjectDirectoryStateMachine()
    _ = try directory.claim("s3://models/one#e1", geometry: geometry, by: a, fresh: model)
    #expect(directory.locate(question(1, b, model)) == [])
    #expect(directory.changed(a, [.gone(model)]) == [.refuse(1, model, .unclaimed(name: "s3://models/one#e1"))])
    _ = try directory.claim("s3://models/one#e1", geometry: geometry, by: b, fresh: object(2))
    #expect(directory.changed(b, [.gone(model)]) == [])
    #expect(directory.names.isEmpty && directory.records.isEmpty)
  }

  @Test func aFailedClaimLeavesNothingAtItsURL() throws {
    var directory = ObjectDirectoryStateMachine()
    let url: Name = "s3://models/one"
    _ = try directory.claim(url + "#e1", geometry: geometry, by: a, fresh: model)
    _ = try directory.named(url, model, claim: 1)
    #expect(directory.changed(a, [.gone(model)]) == [])
    #expect(directory.names.isEmpty && directory.records.isEmpty)
    // The answer to the claim was slower than the failure.
    _ = try directory.claim(url + "#e1", geometry: geometry, by: a, fresh: object(2))
    #expect(directory.changed(a, [.gone(object(2))]) == [])
    #expect(throws: MobulaError.self) { try directory.named(url, object(2), claim: 2) }
    #expect(directory.names.isEmpty && directory.records.isEmpty)
    // Who was told of it before is not left waiting.
    #expect(directory.locate(question(1, b, object(2))) == [.refuse(1, object(2), .deleted)])
  }

  /// Who reads it holds it meanwhile, and lets go of it after it has failed.
  @Test func aFailedClaimThatWasHeldLeavesNothingBehind() throws {
    var directory = ObjectDirectoryStateMachine()
    let url: Name = "s3://models/one"
    _ = try directory.claim(url + "#e1", geometry: geometry, by: a, fresh: model)
    _ = try directory.named(url, model, claim: 1)
    #expect(directory.changed(a, [.held(model), .partial(model, geometry)]) == [])
    #expect(directory.changed(a, [.gone(model)]) == [])
    #expect(directory.names[url] == model)
    #expect(directory.changed(a, [.released(model)]) == [])
    #expect(directory.names.isEmpty && directory.records.isEmpty)
  }

  /// The head is started again while a host reads what nobody else holds yet.
  @Test func whatIsBeingReadKeepsItsNameAtTheNextHead() throws {
    var directory = ObjectDirectoryStateMachine()
    let (url, version): (Name, Name) = ("s3://models/one", "s3://models/one#e1")
    directory.load([
      NameRecord(url.text, KnownName(model, .url(claim: 1))), NameRecord(version.text, KnownName(model, .version)),
    ])
    directory.expect([a, b])
    directory.beginSettling()
    _ = directory.registered(b, HostInventory(), learns: false)
    _ = directory.registered(a, HostInventory(holds: [model]), learns: false)
    _ = directory.settled()
    #expect(directory.names[url] == model && directory.names[version] == model)
    #expect(directory.changed(a, [.partial(model, geometry)]) == [])
    #expect(directory.changed(a, [sealed(model)]) == [])
    #expect(directory.changed(a, [.released(model)]) == [])
    #expect(directory.names[url] == model)
  }

  @Test func anObjectWithTwoURLsKeepsItsVersionUntilNoneNamesIt() throws {
    var directory = ObjectDirectoryStateMachine()
    let (url, old, next): (Name, Name, ObjectID) = ("s3://models/one", "s3://models/one?versionId=1", object(2))
    _ = try directory.claim(url + "#e1#1", geometry: geometry, by: a, fresh: model)
    _ = try directory.named(url, model, claim: 1)
    _ = try directory.named(old, model, claim: 2)
    _ = directory.changed(a, [sealed(model)])
    _ = try directory.claim(url + "#e2#2", geometry: geometry, by: a, fresh: next)
    #expect(try directory.named(url, next, claim: 3) == [])
    #expect(directory.names[url + "#e1#1"] == model && directory.names[old] == model)
  }

  /// A host's copy was damaged on the way; another has compared all of its own.
  @Test func aDamagedCopyGoesAlone() throws {
    var directory = ObjectDirectoryStateMachine()
    let name: Name = "s3://models/one#e1"
    let checksum = ExpectedChecksum(source: name.text, algorithm: "crc32c", bytes: [1, 2, 3, 4], headerSize: 64)
    for host in [a, b] {
      _ = try directory.claim(name, geometry: geometry, by: host, fresh: model, checksum: checksum)
    }
    _ = directory.changed(b, [.partial(model, geometry)])
    _ = directory.changed(a, [sealed(model)])
    #expect(directory.damaged(model, by: b, message: "wrong") == [.drop(model, hosts: [b])])
    #expect(directory.names[name] == model && directory.records[model]?.planner.complete == [a])
    #expect(directory.damaged(model, by: a, message: "wrong") == [.drop(model, hosts: [a])])
    #expect(directory.names.isEmpty)
  }

  @Test func theQuestionsOfALostHostEnd() {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.locate(question(1, b, model)) == [])
    #expect(directory.hostsLost([b]) == [.refuse(1, model, .receiverLost)])
    #expect(directory.changed(a, [sealed(model, held: true)]) == [])
  }

  /// A host found other bytes than S3 says: whoever waits for them, or asks later, hears why, and nothing is left.
  @Test func wrongBytesGo() throws {
    var directory = ObjectDirectoryStateMachine()
    let (name, why): (Name, String) = ("s3://models/one#e1", "The bytes are wrong: upload them again.")
    let checksum = ExpectedChecksum(source: name.text, algorithm: "crc32c", bytes: [1, 2, 3, 4], headerSize: 64)
    for host in [a, b] {
      _ = try directory.claim(name, geometry: geometry, by: host, fresh: model, checksum: checksum)
      _ = directory.changed(host, [.partial(model, geometry)])
    }
    _ = try directory.named("s3://models/one", model, claim: 1)
    #expect(directory.checksum(of: model) == checksum)
    #expect(directory.locate(question(1, c, model, known: [a, b])) == [])
    #expect(
      directory.removed(model, damage: why) == [
        .drop(model, hosts: [a, b]), .refuse(1, model, .damaged(why)),
      ])
    #expect(directory.names == [:])
    #expect(directory.changed(a, [.gone(model)]) == [])
    #expect(directory.changed(b, [sealed(model)]) == [.drop(model, hosts: [b])])
    #expect(directory.locate(question(2, c, model)) == [.refuse(2, model, .damaged(why))])
    #expect(throws: MobulaError.self) { try directory.named("s3://models/one", model, claim: 1) }
    // It may have been damaged on the way: who fetches it anew gets another object.
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: object(2)) == .fill(object(2)))
  }

  /// Bytes are compared by whoever receives them, until one host has done it.
  @Test func bytesAreComparedUntilAHostHasThem() throws {
    var directory = ObjectDirectoryStateMachine()
    let checksum = ExpectedChecksum(source: "s3://models/one", algorithm: "crc32", bytes: [1, 2, 3, 4], headerSize: 0)
    _ = try directory.claim("s3://models/one#e1", geometry: geometry, by: a, fresh: model, checksum: checksum)
    _ = directory.changed(a, [.partial(model, geometry)])
    #expect(directory.checksum(of: model) == checksum)
    _ = directory.changed(a, [sealed(model)])
    #expect(directory.checksum(of: model) == nil)
  }
}
