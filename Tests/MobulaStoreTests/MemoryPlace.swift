import MobulaCore
import Synchronization

@testable import MobulaStore

/// A spill place in this process's memory, which fails as it is told to.
final class MemoryPlace: SpillPlace {
  enum Fault: Sendable {
    case none
    /// Every call fails so.
    case refuses(MobulaError)
    /// Every call takes until it is cancelled, and then looks for bytes all the same.
    case hangs
    /// The next so many reads bring a wrong byte.
    case damages(reads: Int)
    /// The next so many reads find nothing.
    case forgets(reads: Int)
    /// The next write fails after it has come about.
    case losesAnswer
  }

  struct State {
    var items: [String: [UInt8]] = [:]
    var unfinished: Set<String> = []
    var fault = Fault.none
    /// What can be listed, and not read: by these names, and by why.
    var unreadable: [String: MobulaError] = [:]
    /// What can't be removed.
    var stuck: Set<String> = []
    var isUnfinishedStuck = false
    /// What came of asking for bytes when nobody waited any more.
    var late: [MobulaError.Code?] = []
  }

  let title = "memory"
  let state = Mutex(State())

  var names: [String] { state.withLock { $0.items.keys.sorted() } }
  func set(_ fault: Fault) { state.withLock { $0.fault = fault } }

  private func meet() async throws {
    switch state.withLock({ $0.fault }) {
    case .refuses(let error): throw error
    case .hangs: try await Task.sleep(for: .seconds(60))
    default: break
    }
  }

  func write(
    _ name: String, size: Int, bytes: @escaping @Sendable (Range<Int>) throws -> [UInt8]
  ) async throws -> String {
    // Of a write that fails, this remains.
    state.withLock { _ = $0.unfinished.insert(name) }
    do {
      try await meet()
    } catch {
      if error is CancellationError {
        // Whoever waited may have gone before this task was told.
        try? await Task.detached { try await Task.sleep(for: .milliseconds(50)) }.value
        let found = code { _ = try bytes(size - 1..<size) }
        state.withLock { $0.late.append(found) }
      }
      throw error
    }
    var all: [UInt8] = []
    while all.count < size { all += try bytes(all.count..<min(size, all.count + 100_000)) }
    let isLost = state.withLock { state in
      state.items[name] = all
      state.unfinished.remove(name)
      guard case .losesAnswer = state.fault else { return false }
      state.fault = .none
      return true
    }
    if isLost { throw MobulaError(.unavailable, "The answer did not come.") }
    return "v\(size)"
  }

  func read(
    _ item: SpillItem, _ range: Range<Int>,
    piece: @escaping @Sendable (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void
  ) async throws {
    try await meet()
    var bytes = try state.withLock { state throws(MobulaError) -> [UInt8] in
      if case .forgets(let reads) = state.fault, reads > 0 {
        state.fault = .forgets(reads: reads - 1)
        throw MobulaError(.notFound, "There is no \(item.name).")
      }
      if let error = state.unreadable[item.name] { throw error }
      guard let bytes = state.items[item.name] else { throw MobulaError(.notFound, "There is no \(item.name).") }
      guard item.version == "v\(bytes.count)" else { throw MobulaError(.mismatch, "\(item.name) is another.") }
      return Array(bytes[range])
    }
    let isDamaged = state.withLock { state in
      guard case .damages(let reads) = state.fault, reads > 0 else { return false }
      state.fault = .damages(reads: reads - 1)
      return true
    }
    if isDamaged { bytes[bytes.count / 2] ^= 1 }
    // Last pieces first: order does not matter.
    for start in stride(from: 0, to: bytes.count, by: 70_000).reversed() {
      try bytes[start..<min(bytes.count, start + 70_000)].withUnsafeBytes { try piece(range.lowerBound + start, $0) }
    }
  }

  func items() async throws -> [SpillItem] {
    try await meet()
    return state.withLock { $0.items.map { SpillItem(name: $0, size: $1.count, version: "v\($1.count)") } }
  }

  func remove(_ names: [String]) async throws {
    try await meet()
    try state.withLock { state throws(MobulaError) in
      for name in names where !state.stuck.contains(name) { state.items[name] = nil }
      guard state.stuck.isDisjoint(with: names) else { throw MobulaError(.denied, "It is locked.") }
    }
  }

  func removeUnfinished(unless isNeeded: @escaping @Sendable (String) -> Bool) async throws {
    try await meet()
    if state.withLock({ $0.isUnfinishedStuck }) { throw MobulaError(.denied, "No right to see uploads.") }
    state.withLock { state in state.unfinished = state.unfinished.filter { isNeeded($0) } }
  }
}
