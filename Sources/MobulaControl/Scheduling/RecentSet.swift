/// The last of what came, up to a number: of what came before them nothing is known.
struct RecentSet<Element: Hashable & Sendable>: Sendable {
  private var members: Set<Element> = []
  private var order: [Element] = []
  private var oldest = 0
  let capacity: Int

  init(capacity: Int) { self.capacity = capacity }

  func contains(_ element: Element) -> Bool { members.contains(element) }

  mutating func insert(_ element: Element) {
    guard members.insert(element).inserted else { return }
    if order.count < capacity {
      order.append(element)
    } else {
      members.remove(order[oldest])
      order[oldest] = element
      oldest = (oldest + 1) % capacity
    }
  }
}
