/// Which of a pod's GPUs are whose: so many whole ones, or a part of one.
package struct DeviceBook: Sendable {
  private static let whole = ResourceAmount(1)

  /// What is left of each, by its index.
  private var free: [ResourceAmount]
  private var taken: [LeaseID: (devices: [Int], amount: ResourceAmount)] = [:]

  /// - Parameter total: what is over of a whole one is nobody's.
  package init(total: ResourceAmount) {
    free = Array(repeating: Self.whole, count: max(0, total.tenThousandths / Self.whole.tenThousandths))
  }

  package var count: Int { free.count }

  /// Which ones a lease has; none, for most.
  package func devices(of lease: LeaseID) -> [Int] { taken[lease]?.devices ?? [] }

  /// Gives a lease what it wants: the lowest that nobody has a part of, or of the one with least left that has it.
  ///
  /// - Throws: `MobulaError`: `invalidArgument` for one and a half, `full` when what is left is in pieces.
  package mutating func take(_ amount: ResourceAmount, for lease: LeaseID) throws(MobulaError) {
    guard amount > .zero, !free.isEmpty else { return }
    try check(amount)
    let count = amount.tenThousandths / Self.whole.tenThousandths
    let part = count == 0 ? amount : Self.whole
    let fitting = free.indices.filter { free[$0] >= part }.sorted { (free[$0], $0) < (free[$1], $1) }
    guard fitting.count >= max(1, count) else {
      throw MobulaError(.full, "The pod has no \(amount) of its GPUs free, but parts of them: return a lease first.")
    }
    let devices = fitting.prefix(max(1, count)).sorted()
    for device in devices { free[device] = free[device] - part }
    taken[lease] = (devices, part)
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for one and a half.
  package func check(_ amount: ResourceAmount) throws(MobulaError) {
    let count = amount.tenThousandths / Self.whole.tenThousandths
    guard count > 0, amount != ResourceAmount(count), !free.isEmpty else { return }
    throw MobulaError(
      .invalidArgument, "A lease can't be of \(amount) GPUs: ask for whole ones, or for a part of one.")
  }

  package mutating func giveBack(_ lease: LeaseID) {
    guard let (devices, amount) = taken.removeValue(forKey: lease) else { return }
    for device in devices { free[device] = free[device] + amount }
  }
}
