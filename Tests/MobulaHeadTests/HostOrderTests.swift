import MobulaCore
import Testing

@testable import MobulaHead

/// Orders to a host are told one after the other.
@Suite struct HostOrderTests {
  private func given(_ name: Name, _ object: ObjectID) -> HostOrder {
    .names(NameNews(given: [name: KnownName(object, .given)], taken: []))
  }

  private func taken(_ name: Name) -> HostOrder { .names(NameNews(given: [:], taken: [name])) }

  @Test func oneIsToldAtATime() throws {
    var queue = HostOrderQueue()
    guard case .drop(let first) = queue.add(.drop(DropRequest(objects: [object(1)]))) else {
      throw MobulaError(.protocolViolation, "the first order waits")
    }
    #expect(first.objects == [object(1)])
    #expect(queue.add(.drop(DropRequest(objects: [object(2)]))) == nil)
    #expect(queue.add(.drop(DropRequest(objects: [object(3)], damages: [object(3): "wrong"]))) == nil)
    #expect(queue.add(.keep(KeepRequest(objects: [object(4)]))) == nil)
    #expect(queue.add(.drop(DropRequest(objects: [object(5)]))) == nil)
    // What comes one after the other and is of a kind goes together; nothing overtakes anything.
    guard case .drop(let second) = queue.told(), case .keep(let third) = queue.told(),
      case .drop(let last) = queue.told()
    else { throw MobulaError(.protocolViolation, "other orders, or in another order") }
    #expect(second.objects == [object(2), object(3)] && second.damages == [object(3): "wrong"])
    #expect(third.objects == [object(4)] && last.objects == [object(5)])
    #expect(queue.told() == nil && !queue.isTelling)
  }

  /// A name that moves to another object, or goes and comes, ends as it was told last.
  @Test func theLastWordOfANameHolds() throws {
    var queue = HostOrderQueue()
    _ = queue.add(given("x", object(1)))
    _ = queue.add(taken("x"))
    _ = queue.add(given("x", object(2)))
    _ = queue.add(given("y", object(3)))
    _ = queue.add(taken("y"))
    guard case .names(let news) = queue.told() else { throw MobulaError(.protocolViolation, "no news of names") }
    var names: [Name: ObjectID] = ["x": object(1)]
    for name in news.taken { names[name] = nil }
    for (name, known) in news.given { names[name] = known.object }
    #expect(names == ["x": object(2)])
  }

  /// Names are waited for a moment; what else came meanwhile is not overtaken.
  @Test func namesAreGathered() throws {
    var queue = HostOrderQueue()
    guard let first = queue.add(given("a", object(1))) else { throw MobulaError(.protocolViolation, "it waits") }
    #expect(first.patience > .zero && HostOrder.drop(DropRequest(objects: [])).patience == .zero)
    _ = queue.add(given("b", object(2)))
    _ = queue.add(.drop(DropRequest(objects: [object(1)])))
    _ = queue.add(given("c", object(3)))
    guard case .names(let news) = queue.gathered(first), case .drop = queue.told(), case .names(let last) = queue.told()
    else { throw MobulaError(.protocolViolation, "other orders, or in another order") }
    #expect(Set(news.given.keys) == ["a", "b"] && Set(last.given.keys) == ["c"])
    #expect(queue.told() == nil)
  }

  @Test func ordersOfThousandsAreSeveral() {
    var queue = HostOrderQueue()
    _ = queue.add(.keep(KeepRequest(objects: [])))
    for number in 0..<3 {
      _ = queue.add(.drop(DropRequest(objects: (0..<2000).map { object(UInt64(number * 2000 + $0)) })))
    }
    var sizes: [Int] = []
    while case .drop(let request)? = queue.told() { sizes.append(request.objects.count) }
    #expect(sizes == [4000, 2000])
  }
}
