/// A set that mostly has one element or none, and needs no memory of its own then.
struct Few<Element: Hashable & Sendable>: Sendable, Sequence, ExpressibleByArrayLiteral {
  private var more: Set<Element> = []
  /// `nil` only when there are no more either.
  private var one: Element?

  init() {}

  init(arrayLiteral elements: Element...) { for element in elements { insert(element) } }

  var isEmpty: Bool { one == nil }
  var count: Int { (one == nil ? 0 : 1) + more.count }
  var first: Element? { one }

  func contains(_ element: Element) -> Bool { one == element || !more.isEmpty && more.contains(element) }

  mutating func insert(_ element: Element) {
    if one == nil {
      one = element
    } else if one != element {
      more.insert(element)
    }
  }

  mutating func remove(_ element: Element) {
    if one == element { one = more.popFirst() } else { more.remove(element) }
  }

  /// In no order.
  func makeIterator() -> AnyIterator<Element> {
    var first = one
    var rest = more.makeIterator()
    return AnyIterator {
      if let element = first {
        first = nil
        return element
      }
      return rest.next()
    }
  }
}
