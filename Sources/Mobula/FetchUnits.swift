import MobulaCore
package import MobulaWire

/// What is fetched together: big objects each by itself, and small ones by the dozen, since these take the time of their
/// requests.
package struct FetchUnits {
  /// Small objects of one request: so many that several requests are under way, and S3 is never waited for by all.
  private static let together = 32
  /// So many objects at a time, and of big ones no more than so many bytes, since they take that of their bytes.
  private static let (mostSmall, mostBig, mostBytes) = (192, 32, 64_000_000)

  /// Indices of entries.
  package private(set) var units: [[Int]] = []
  private let sizes: [Int]

  /// Hosts that fetch the same at the same time each take the units of small objects in an order of its own: each reads
  /// first what it asks for first, so that all read, and send to the others, about as much.
  ///
  /// - Parameter holdsEach: whether each object is held by whoever fetches it, and so comes by itself.
  package init(_ entries: [ListS3Reply.Entry], holdsEach: Bool) {
    sizes = entries.map(\.size.bytes)
    var small: [Int] = []
    var many: [[Int]] = []
    for (index, entry) in entries.enumerated() {
      guard entry.isSmall, !holdsEach, entries.count > 1 else {
        units.append([index])
        continue
      }
      small.append(index)
      if small.count == Self.together {
        many.append(small)
        small = []
      }
    }
    if !small.isEmpty { many.append(small) }
    units += many.shuffled()
  }

  /// Runs `body` for each unit, several at a time, and returns what it returned in the order of the entries.
  package func together<Value: Sendable>(
    _ body: @escaping @Sendable ([Int]) async throws -> [(Int, Value)]
  ) async rethrows -> [Value] {
    try await withThrowingTaskGroup(of: [(Int, Value)].self) { group in
      var values: [Value?] = Array(repeating: nil, count: sizes.count)
      var (weight, bytes) = (0, 0)
      func cost(_ unit: [Int]) -> (weight: Int, bytes: Int) {
        (unit.count == 1 ? Self.mostSmall / Self.mostBig : unit.count, unit.reduce(0) { $0 + sizes[$1] })
      }
      func take() async throws {
        guard let done = try await group.next() else { return }
        for (index, value) in done { values[index] = value }
        let cost = cost(done.map(\.0))
        weight -= cost.weight
        bytes -= cost.bytes
      }
      for unit in units {
        let cost = cost(unit)
        while weight > 0, weight + cost.weight > Self.mostSmall || bytes + cost.bytes > Self.mostBytes {
          try await take()
        }
        weight += cost.weight
        bytes += cost.bytes
        group.addTask { try await body(unit) }
      }
      while weight > 0 { try await take() }
      return values.map { $0! }
    }
  }
}
