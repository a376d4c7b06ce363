/// What people call members of one kind, also the last of those that have gone: errors name them.
struct MemberNames<ID: Hashable & Sendable>: Sendable {
  private var names: [ID: String] = [:]
  /// Members that have gone, the first to go first.
  private var gone: [ID] = []
  /// How many of the gone are remembered.
  let capacity: Int

  init(capacity: Int = 1024) { self.capacity = capacity }

  subscript(id: ID) -> String? { names[id] }

  mutating func joined(_ id: ID, _ name: String) {
    names[id] = name
    gone.removeAll { $0 == id }
  }

  mutating func left(_ id: ID) {
    guard names[id] != nil, !gone.contains(id) else { return }
    gone.append(id)
    if gone.count > capacity { names[gone.removeFirst()] = nil }
  }
}
