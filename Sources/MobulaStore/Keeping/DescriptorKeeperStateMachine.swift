internal import MobulaCore

/// What a keeper of descriptors has, and what it does about each packet of a store.
///
/// `Held` owns one descriptor: what is dropped here is closed with its last owner.
struct DescriptorKeeperStateMachine<Held: Sendable>: Sendable {
  struct Entry: Sendable {
    let key: String
    let descriptors: [Held]
  }

  enum Action: Sendable {
    case nothing
    /// The descriptors were not kept.
    case report(MobulaError)
    /// Send these, oldest first, and the end.
    case answer([Entry])
    /// Close the connection; what is kept stays. No error when the keeper itself is over.
    case hangUp(MobulaError?)
  }

  private let largestEntryCount: Int
  private let largestDescriptorCount: Int
  private var entries: [String: (order: UInt64, entry: Entry)] = [:]
  private var next: UInt64 = 0
  private(set) var descriptorCount = 0
  private var isClosed = false

  init(largestEntryCount: Int, largestDescriptorCount: Int) {
    self.largestEntryCount = largestEntryCount
    self.largestDescriptorCount = largestDescriptorCount
  }

  var entryCount: Int { entries.count }

  /// A packet came from the store.
  ///
  /// - Parameter isIncomplete: whether more descriptors were attached than came.
  mutating func received(_ packet: [UInt8], _ descriptors: [Held], isIncomplete: Bool) -> Action {
    guard !isClosed else { return .hangUp(nil) }
    guard let message = KeeperMessage(packet) else {
      return .hangUp(violation("\(packet.count) bytes that are no message"))
    }
    let expected = message.descriptorCount
    // Fewer than were promised may come where this process has no number left for the others.
    guard descriptors.count == expected && !isIncomplete || descriptors.count < expected && isIncomplete else {
      return .hangUp(violation("a message with another number of descriptors than the \(expected) that it names"))
    }
    switch message {
    case .keep(let key, _): return keep(key, descriptors, isIncomplete: isIncomplete)
    case .drop(let key):
      remove(key)
      return .nothing
    case .list:
      return .answer(entries.values.sorted { $0.order < $1.order }.map(\.entry))
    case .entry, .end: return .hangUp(violation("a message that only the keeper sends"))
    }
  }

  /// The keeper is over: nothing is kept any more.
  mutating func close() {
    isClosed = true
    entries = [:]
    descriptorCount = 0
  }

  private mutating func keep(_ key: String, _ descriptors: [Held], isIncomplete: Bool) -> Action {
    // First, and for good if the new ones can't be kept: the store has no use for the old ones any more,
    // and one started after it must not take them for the new ones.
    remove(key)
    if isIncomplete {
      return .report(full(key, "the process has no descriptor left: raise its limit (ulimit -n)"))
    }
    guard entries.count < largestEntryCount else {
      return .report(full(key, "\(largestEntryCount) keys are kept already: drop some first"))
    }
    guard descriptorCount + descriptors.count <= largestDescriptorCount else {
      return .report(full(key, "\(descriptorCount) descriptors are kept already: raise the limit (ulimit -n)"))
    }
    entries[key] = (next, Entry(key: key, descriptors: descriptors))
    next += 1
    descriptorCount += descriptors.count
    return .nothing
  }

  private mutating func remove(_ key: String) {
    guard let (_, entry) = entries.removeValue(forKey: key) else { return }
    descriptorCount -= entry.descriptors.count
  }

  private func violation(_ what: String) -> MobulaError {
    MobulaError(
      .protocolViolation,
      "A store sent its keeper \(what), and was disconnected: start the host again, with the same version throughout.")
  }

  private func full(_ key: String, _ why: String) -> MobulaError {
    MobulaError(.full, "The descriptors of \"\(key)\" can't be kept, since \(why).")
  }
}
