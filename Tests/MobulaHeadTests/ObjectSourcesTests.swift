import MobulaCore
import Testing

@testable import MobulaHead

@Suite struct ObjectSourcesTests {
  let a = host(1), b = host(2), c = host(3), d = host(4)
  let model = object(1)

  private func directory(at maker: HostID) -> ObjectDirectoryStateMachine {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(maker, [sealed(model, held: true)])
    return directory
  }

  @Test func receiversFormAChain() {
    var directory = directory(at: a)
    #expect(directory.locate(question(1, a, model)) == [.answer(1, .local(geometry, digest()))])
    #expect(directory.locate(question(2, b, model)) == [answer(2, a)])
    // b can't serve yet, and a is busy with b.
    #expect(directory.locate(question(3, c, model)) == [])
    #expect(directory.locate(question(4, d, model)) == [])
    #expect(directory.changed(b, [.partial(model, geometry)]) == [answer(3, b)])
    #expect(directory.changed(c, [.partial(model, geometry)]) == [answer(4, c)])
    // Once b is served, a is idle again, and closest.
    #expect(directory.changed(b, [sealed(model)]) == [])
    #expect(directory.locate(question(5, host(5), model)) == [answer(5, a)])
  }

  @Test func theOriginServesWhoeverAsksIt() {
    var directory = directory(at: a)
    for (number, receiver) in [b, c, d].enumerated() {
      let id = RequestID(UInt64(number))
      #expect(directory.locate(question(id, receiver, model, plan: .origin)) == [answer(id, a)])
      #expect(directory.changed(receiver, [.partial(model, geometry)]) == [])
    }
    #expect(directory.changed(b, [sealed(model)]) == [])
    #expect(directory.locate(question(9, host(5), model, plan: .origin)) == [answer(9, a)])
    #expect(directory.locate(question(10, host(5), model, excluded: [a], plan: .origin)) == [answer(10, b)])
  }

  @Test func aLostLinkIsReplacedAtBothEnds() {
    var directory = directory(at: a)
    _ = directory.locate(question(1, b, model))
    _ = directory.changed(b, [.partial(model, geometry), .held(model)])
    _ = directory.locate(question(2, c, model))
    _ = directory.changed(c, [.partial(model, geometry)])
    _ = directory.locate(question(3, d, model))
    _ = directory.changed(d, [.partial(model, geometry)])
    #expect(directory.hostsLost([b]) == [])
    // d first: c has no source itself, so that it can't be one.
    #expect(directory.locate(question(4, d, model, excluded: [c])) == [answer(4, a)])
    #expect(directory.locate(question(5, c, model, excluded: [b])) == [answer(5, d)])
    // d's own receiver is never its source.
    #expect(directory.locate(question(6, d, model, excluded: [a])) == [.refuse(6, model, .sourcesFailed([a]))])
  }

  @Test func whoeverWaitsForAReceiverThatFailsGoesOn() {
    var directory = directory(at: a)
    #expect(directory.locate(question(1, b, model)) == [answer(1, a)])
    #expect(directory.locate(question(2, c, model)) == [])
    #expect(directory.transferEnded(receiver: b, source: a, object: model) == [answer(2, a)])
  }

  @Test func aReceiverThatNeverBeginsIsNotWaitedFor() {
    var directory = directory(at: a)
    directory.advance(to: .seconds(100))
    #expect(directory.locate(question(1, b, model)) == [answer(1, a)])
    directory.advance(to: .seconds(103))
    #expect(directory.locate(question(2, c, model)) == [])
    #expect(directory.nextExpiry == .seconds(105))
    #expect(directory.tick(.seconds(104)) == [])
    #expect(directory.tick(.seconds(105)) == [answer(2, a)])
    #expect(directory.nextExpiry == .seconds(110))
    // One that has begun keeps its source, however long it takes.
    #expect(directory.changed(c, [.partial(model, geometry)]) == [])
    #expect(directory.tick(.seconds(110)) == [])
    #expect(directory.nextExpiry == nil)
    #expect(directory.locate(question(3, d, model)) == [answer(3, c)])
    // b was only late: nobody depends on it before it is complete, or asks again.
    #expect(directory.changed(b, [.partial(model, geometry), .gone(model), .partial(model, geometry)]) == [])
    #expect(directory.locate(question(4, host(5), model)) == [])
    #expect(directory.tick(.seconds(115)) == [answer(4, c)])
  }

  @Test func aReceiverThatAsksAgainHasItsTimeAgain() {
    var directory = directory(at: a)
    #expect(directory.locate(question(1, b, model)) == [answer(1, a)])
    #expect(directory.locate(question(2, c, model)) == [])
    directory.advance(to: .seconds(3))
    #expect(directory.transferEnded(receiver: b, source: a, object: model) == [answer(2, a)])
    #expect(directory.locate(question(3, b, model)) == [])
    #expect(directory.changed(c, [.partial(model, geometry)]) == [answer(3, c)])
    #expect(directory.locate(question(4, d, model)) == [])
    #expect(directory.tick(.seconds(5)) == [])
    #expect(directory.nextExpiry == .seconds(8))
    #expect(directory.tick(.seconds(8)) == [answer(4, c)])
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

  @Test func oneHostFetchesWhatSeveralClaim() throws {
    var directory = ObjectDirectoryStateMachine()
    let name = "s3://models/one#e1"
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: model) == .yours(model))
    #expect(try directory.claim(name, geometry: geometry, by: b, fresh: object(2)) == .exists(model))
    #expect(throws: MobulaError.self) {
      var again = directory
      _ = again.changed(a, [.partial(model, geometry)])
      _ = try again.claim(name, geometry: otherGeometry, by: b, fresh: object(2))
    }
    #expect(directory.locate(question(1, b, model)) == [])
    #expect(directory.locate(question(2, c, model)) == [])
    #expect(directory.changed(a, [.partial(model, geometry)]) == [answer(1, a, nil)])
    #expect(directory.changed(b, [.partial(model, geometry)]) == [answer(2, b, nil)])
    // The claimer is lost; who asks again may claim it, and goes on with what it has.
    #expect(directory.hostsLost([a]) == [])
    #expect(directory.locate(question(3, b, model, excluded: [a])) == [.refuse(3, model, .unclaimed(name: name))])
    #expect(try directory.claim(name, geometry: geometry, by: b, fresh: object(3)) == .yours(model))
    #expect(directory.changed(b, [sealed(model)]) == [])
    // Nobody holds it, but it has a name.
    #expect(try directory.unnamed(name) == [.drop(model, hosts: [b])])
  }

  @Test func aClaimWhoseAnswerWasLostIsAnsweredAgain() throws {
    var directory = ObjectDirectoryStateMachine()
    let name = "s3://models/one#e1"
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: model) == .yours(model))
    #expect(directory.registered(a, HostInventory()) == [])
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: object(2)) == .yours(model))
    #expect(try directory.claim(name, geometry: geometry, by: b, fresh: object(3)) == .exists(model))
    #expect(directory.changed(a, [.partial(model, geometry)]) == [])
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: object(4)) == .exists(model))
    #expect(directory.changed(a, [sealed(model)]) == [])
    #expect(try directory.claim(name, geometry: geometry, by: a, fresh: object(5)) == .exists(model))
    #expect(directory.names == [name: model])
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

  @Test func theQuestionsOfALostHostEnd() {
    var directory = ObjectDirectoryStateMachine()
    #expect(directory.locate(question(1, b, model)) == [])
    #expect(directory.hostsLost([b]) == [.refuse(1, model, .receiverLost)])
    #expect(directory.changed(a, [sealed(model, held: true)]) == [])
  }
}
