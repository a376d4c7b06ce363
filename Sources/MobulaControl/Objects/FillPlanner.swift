package import MobulaCore

/// Which part of an object each host reads from outside the cluster, so that every byte is read once.
///
/// A *part* is a run of chunks. Hosts that want the object ask for a part, read it, and ask again, and meanwhile take
/// what the others have read from them: whoever reads fast reads more. What a host leaves undone, others get; when
/// nothing has been left for as long as a part takes, one that takes a host much longer is given to one more. Until then
/// it may just have shared a line with those who are done.
///
/// Instants are durations since any common instant.
package struct FillPlanner: Sendable {
  package enum Answer: Hashable, Sendable {
    /// Read these chunks.
    case part(Range<Int>)
    /// Everything is being read; that may change.
    case wait
    /// Enough hosts read it.
    case none
  }

  private struct Reading: Sendable {
    var hosts: [HostID]
    var since: Duration
  }

  /// Hosts that read one object at the same time, at most: an S3 prefix serves a few thousand requests a second, and
  /// beyond some dozens of readers the exchange between hosts is what takes the time.
  package static let maximumHosts = 32
  /// How much longer than others a part must take before another host reads it, too; and the least time.
  private static let patience = 4
  private static let leastPatience = Duration.seconds(2)
  /// How long is waited, at most, for those who have the line for themselves now.
  private static let mostWait = Duration.seconds(30)

  private let chunks: Int
  private let chunksPerPart: Int
  /// Parts from here on were never given to anybody.
  private var next = 0
  /// Given, and not read.
  private var returned: Set<Int> = []
  private var reading: [Int: Reading] = [:]
  /// Who has read a part.
  private var readers: [Int: HostID] = [:]
  /// Since when nothing has been left to give.
  private var allGiven: Duration?
  /// What parts took, exponentially averaged.
  private var usual: Duration?
  package private(set) var hosts: Set<HostID> = []

  package init(_ geometry: ChunkGeometry) {
    chunks = geometry.count
    chunksPerPart = Self.chunksPerPart(geometry)
  }

  /// A sixty-fourth of the object, but between 2 and 32 MiB, in whole chunks: a request should take much longer than
  /// its round trip, and no host should be waited for at the end.
  static func chunksPerPart(_ geometry: ChunkGeometry) -> Int {
    let bytes = min(max(geometry.objectSize / 64, 2 << 20), 32 << 20)
    return max(1, bytes / geometry.chunkSize)
  }

  private var count: Int { (chunks + chunksPerPart - 1) / chunksPerPart }

  private func range(_ part: Int) -> Range<Int> {
    part * chunksPerPart..<min(chunks, (part + 1) * chunksPerPart)
  }

  /// The part that begins with this chunk; `nil` for what is no part.
  private func part(_ chunks: Range<Int>) -> Int? {
    guard chunks.lowerBound >= 0, chunks.lowerBound % chunksPerPart == 0 else { return nil }
    let part = chunks.lowerBound / chunksPerPart
    return part < count && range(part) == chunks ? part : nil
  }

  /// The host reads along, as soon as it asks.
  ///
  /// - Returns: false when enough hosts do.
  package mutating func join(_ host: HostID) -> Bool {
    if hosts.contains(host) { return true }
    guard hosts.count < Self.maximumHosts else { return false }
    hosts.insert(host)
    return true
  }

  /// What the host is to read next.
  package mutating func take(_ host: HostID, now: Duration) -> Answer {
    guard join(host) else { return .none }
    if let part = returned.min() {
      returned.remove(part)
      return give(part, to: host, now)
    }
    if next < count {
      next += 1
      return give(next - 1, to: host, now)
    }
    let since = allGiven ?? now
    allGiven = since
    guard let usual, now - since >= min(usual, Self.mostWait) else { return .wait }
    let bearable = max(usual * Self.patience, Self.leastPatience)
    let slow = reading.filter {
      $0.value.hosts.count == 1 && $0.value.hosts != [host] && now - $0.value.since > bearable
    }
    guard let part = slow.keys.min() else { return .wait }
    reading[part]!.hosts.append(host)
    return .part(range(part))
  }

  private mutating func give(_ part: Int, to host: HostID, _ now: Duration) -> Answer {
    reading[part] = Reading(hosts: [host], since: now)
    allGiven = nil
    return .part(range(part))
  }

  /// The host has all of a part.
  package mutating func finished(_ host: HostID, _ chunks: Range<Int>, now: Duration) {
    guard let part = part(chunks), let state = reading[part], state.hosts.contains(host) else { return }
    reading[part] = nil
    readers[part] = host
    if state.hosts.first == host {
      let took = now - state.since
      usual = usual.map { $0 * 0.8 + took * 0.2 } ?? took
    }
  }

  /// The host can't read any more; what it has read it has.
  package mutating func failed(_ host: HostID) {
    hosts.remove(host)
    for (part, state) in reading where state.hosts.contains(host) {
      let others = state.hosts.filter { $0 != host }
      reading[part] = others.isEmpty ? nil : Reading(hosts: others, since: state.since)
      if others.isEmpty { returned.insert(part) }
    }
  }

  /// The host may not know what it was given.
  package mutating func readAnew(_ host: HostID) {
    failed(host)
    hosts.insert(host)
  }

  /// The host is gone, with what it has read: others may have it by now, and then only say so.
  package mutating func lost(_ host: HostID) {
    failed(host)
    for (part, reader) in readers where reader == host {
      readers[part] = nil
      returned.insert(part)
    }
  }

  /// Who reads all of it, where that is one part.
  package var onlyReader: HostID? { count == 1 ? reading[0]?.hosts.first ?? readers[0] : nil }

  /// Whether the host has a part that it has not read yet.
  package func isReading(_ host: HostID) -> Bool { reading.values.contains { $0.hosts.contains(host) } }

  /// Whether somebody who waits may be given something later, without anything else happening.
  package func mayBeSlow(now: Duration) -> Bool { usual != nil && reading.values.contains { $0.hosts.count == 1 } }
}
