import MobulaCore
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct ObjectHoldsTests {
  let a = host(1), b = host(2), c = host(3)
  let model = object(1), part = object(2)

  @Test func anObjectGoesWhenItsLastHoldGoes() {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.changed(a, [sealed(model, held: true)]) == [])
    #expect(directory.changed(b, [.held(model)]) == [])
    #expect(directory.changed(a, [.released(model)]) == [])
    #expect(directory.changed(b, [.partial(model, geometry)]) == [])
    #expect(directory.changed(b, [.released(model)]) == [.drop(model, hosts: [a, b])])
    #expect(directory.locate(question(1, c, model)) == [.refuse(1, model, .deleted)])
    // A replica that was still arriving is dropped when it is reported.
    #expect(directory.changed(c, [sealed(model)]) == [.drop(model, hosts: [c])])
    #expect(directory.listed() == [])
  }

  @Test func aHoldMayComeBeforeTheObject() {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.changed(a, [.held(model)]) == [])
    #expect(directory.changed(b, [sealed(model)]) == [])
    #expect(directory.changed(a, [.released(model)]) == [.drop(model, hosts: [b])])
  }

  @Test func whatNobodyHoldsAtItsSealIsDropped() {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.changed(a, [sealed(model)]) == [.drop(model, hosts: [a])])
  }

  @Test func theChangesOfOneReportAreJudgedTogether() {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.changed(a, [sealed(model), .held(model)]) == [])
    #expect(directory.changed(a, [.released(model), .held(model)]) == [])
    #expect(directory.changed(a, [.held(part), .released(part), sealed(part)]) == [.drop(part, hosts: [a])])
  }

  @Test func aContainerHoldsWhatIsInside() {
    var directory = ObjectDirectoryStateMachine()
    let outer = object(3)
    #expect(directory.changed(a, [sealed(part, held: true), sealed(model, held: true, contains: [part])]) == [])
    #expect(directory.changed(b, [sealed(outer, held: true, contains: [model])]) == [])
    #expect(directory.changed(a, [.released(part), .released(model)]) == [])
    #expect(
      directory.changed(b, [.released(outer)]) == [
        .drop(outer, hosts: [b]), .drop(model, hosts: [a]), .drop(part, hosts: [a]),
      ])
  }

  @Test func namedObjectsOutliveTheirJob() throws {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.changed(a, [sealed(model, held: true), sealed(part, held: true)]) == [])
    #expect(try directory.named("model", model) == [])
    #expect(directory.jobEnded(JobID(1)) == [.drop(part, hosts: [a])])
    #expect(directory.locate(question(1, b, object(7))) == [.refuse(1, object(7), .jobEnded)])
    #expect(try directory.resolve("model").object == model)
    #expect(try directory.resolve(Name(model.description)).names == ["model"])
    // Held still, but its job has ended.
    #expect(try directory.unnamed("model") == [.drop(model, hosts: [a])])
    #expect(throws: MobulaError.self) { try directory.unnamed("model") }
    #expect(throws: MobulaError.self) { try directory.resolve("model") }
  }

  @Test func objectsThatContainEachOtherGoWithTheirJob() {
    var directory = ObjectDirectoryStateMachine()
    #expect(
      directory.changed(a, [sealed(model, held: true, contains: [part]), sealed(part, held: true, contains: [model])])
        == [])
    #expect(directory.changed(a, [.released(model), .released(part)]) == [])
    #expect(directory.jobEnded(JobID(1)) == [.drop(model, hosts: [a]), .drop(part, hosts: [a])])
  }

  @Test func aNameIsOneObjects() throws {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true), sealed(part, held: true)])
    _ = try directory.named("model", model)
    #expect(throws: MobulaError.self) { try directory.named("model", part) }
    #expect(try directory.named("model", model) == [])
    // `rm` takes it from whoever holds it.
    #expect(directory.removed(model) == [.drop(model, hosts: [a])])
    #expect(throws: MobulaError.self) { try directory.named("again", model) }
    #expect(try directory.named("model", part) == [])
  }

  @Test func aReplicaWithOtherBytesIsNotUsed() {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true)])
    #expect(directory.changed(b, [sealed(model, held: true, digest: digest(9))]) == [.reportCorrupt(b, model)])
    #expect(directory.changed(b, [.partial(model, otherGeometry)]) == [.reportCorrupt(b, model)])
    #expect(directory.listed().map(\.complete) == [[a]])
  }

  @Test func aRestartedHeadDropsNothingBeforeItKnowsAll() {
    var directory = ObjectDirectoryStateMachine()
    directory.beginSettling()
    let replica = SealedReplica(object: model, geometry: geometry, digest: digest(), contains: [part])
    let inner = SealedReplica(object: part, geometry: geometry, digest: digest())
    let unheld = SealedReplica(object: object(5), geometry: geometry, digest: digest())
    #expect(directory.registered(a, HostInventory(sealed: [inner, replica, unheld])) == [])
    #expect(directory.registered(b, HostInventory(holds: [model], names: ["it": KnownName(object(5), .given)])) == [])
    #expect(directory.settled() == [])
    #expect(directory.changed(b, [.released(model)]) == [.drop(model, hosts: [a]), .drop(part, hosts: [a])])
    #expect(directory.names == ["it": object(5)])
  }

  @Test func jobsWhoseDriversDoNotComeEndWithTheSettling() {
    var directory = ObjectDirectoryStateMachine()
    directory.beginSettling()
    let kept = object(7, job: 2)
    let replicas = [model, part, kept].map { SealedReplica(object: $0, geometry: geometry, digest: digest()) }
    #expect(
      directory.registered(
        a, HostInventory(sealed: replicas, holds: [model, part, kept], names: ["it": KnownName(part, .given)])) == [])
    #expect(directory.settled(ending: [JobID(1)]) == [.drop(model, hosts: [a])])
    #expect(directory.listed().map(\.object) == [part, kept])
  }

  @Test func registeringAgainReplacesWhatWasKnown() {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true), sealed(part, held: true)])
    let replica = SealedReplica(object: model, geometry: geometry, digest: digest())
    #expect(directory.registered(a, HostInventory(sealed: [replica], holds: [model])) == [])
    #expect(directory.listed().map(\.object) == [model])
    #expect(directory.registered(a, HostInventory(sealed: [replica])) == [.drop(model, hosts: [a])])
  }

  @Test func waitingEndsWhenEnoughAreComplete() {
    var directory = ObjectDirectoryStateMachine()
    let third = object(3)
    #expect(directory.wait(1, for: [model, part, third], count: 2) == [])
    #expect(directory.changed(a, [.held(model), .partial(model, geometry), sealed(part, held: true)]) == [])
    #expect(directory.wait(2, for: [part], count: 1) == [.ready(2, [part])])
    #expect(directory.changed(a, [sealed(model)]) == [.ready(1, [model, part])])
    #expect(directory.wait(3, for: [model, third], count: 2) == [])
    #expect(directory.endWait(3) == [model])
    #expect(directory.changed(a, [sealed(third, held: true)]) == [])
  }
}
