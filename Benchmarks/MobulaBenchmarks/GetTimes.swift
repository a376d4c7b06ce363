import MobulaCore
import MobulaStore

/// Gets by another process than the maker's.
enum GetTimes {
  static let names = [
    "rate of gets of 1 kB", "rate of gets of 564 MB", "rate of gets of 1 kB beside deletions",
    "rate of gets of 1 kB beside evictions", "564 MB mapped by a process",
  ]
  /// Bytes of the objects that come and go.
  private static let comingSize = 4096
  private static let firstComing: UInt64 = 1000
  private static let verifyingTime = 2.0

  static func rows(_ options: Options) throws -> [Row] {
    let bigSize = min(SharedReads.bigSize, availableMemory() / 3)
    let host = try BenchStore(capacity: bigSize + (100 << 20))
    defer { host.close() }
    let maker = try Child(.maker, host, [1000, bigSize])
    try maker.expect("made")
    defer { maker.say("go") }
    var rows = [Row(name: names[0], times: try gets(host, 1)), Row(name: names[1], times: try gets(host, 2))]
    for (name, deletes) in [(names[2], true), (names[3], false)] {
      rows.append(try besideEvictor(name, deletes: deletes))
    }
    var (first, all) = (Samples(), Samples())
    for _ in 0..<5 {
      let child = try Child(.timedMapping, host, [2])
      let times = try child.expect("times").split(separator: " ").compactMap { Double($0) }
      first.add(times[0])
      all.add(times[1])
    }
    let note =
      bigSize == SharedReads.bigSize
      ? [] : [Figure(name: "memory is short: size", value: Double(bigSize) / 1e6, unit: "MB")]
    rows.append(
      Row(
        name: names[4],
        times: [
          Figure(name: "call to first byte, best", value: first.least * 1e6, unit: "µs"),
          Figure(name: "call to first byte, median", value: first.median * 1e6, unit: "µs"),
          Figure(name: "call to all pages touched, best", value: all.least * 1e3, unit: "ms"),
          Figure(name: "call to all pages touched, median", value: all.median * 1e3, unit: "ms"),
        ] + note))
    return rows
  }

  private static func gets(_ host: BenchStore, _ number: UInt64) throws -> [Figure] {
    try decoded([Figure].self, Child(.timedGets, host, [number]).expect("figures"))
  }

  /// Gets while the store's process makes, evicts and makes again what it can.
  private static func besideEvictor(_ name: String, deletes: Bool) throws -> Row {
    let evicted = Evictions()
    // Where nothing is deleted, there is room for a quarter of the objects, so the others have to go.
    let capacity = 4 << 20
    let host = try BenchStore(capacity: capacity) { evicted.add($0) }
    defer { host.close() }
    let maker = try Child(.maker, host, [1000])
    try maker.expect("made")
    let objects = deletes ? 64 : 4 * capacity / comingSize
    let evictor = Evictor(host.store, deletes: deletes, objects: objects, evicted)
    defer { evictor.stop() }
    var start = (evicted.count, nanoseconds())
    func evictionsPerSecond() -> Double {
      let rate = Double(evicted.count - start.0) / (Double(nanoseconds() - start.1) / 1e9)
      start = (evicted.count, nanoseconds())
      return rate
    }
    var figures = try gets(host, 1)
    figures.append(Figure(name: "evictions meanwhile", value: evictionsPerSecond() / 1e3, unit: "thousand/s"))
    let verifier = try Child(.verifiedGets, host, [objects])
    let found = try verifier.expect("found").split(separator: " ").compactMap { Double($0) }
    figures += [
      Figure(
        name: "gets of what is evicted, all bytes verified", value: found[0] / verifyingTime / 1e3, unit: "thousand/s"),
      Figure(name: "gets that found nothing", value: found[1] / verifyingTime / 1e3, unit: "thousand/s"),
      Figure(name: "evictions meanwhile", value: evictionsPerSecond() / 1e3, unit: "thousand/s"),
    ]
    guard found[2] == 0 else {
      throw MobulaError(
        .corrupted, "\(Int(found[2])) gets saw bytes that are not their object's: the read protocol is broken.")
    }
    maker.say("go")
    return Row(name: name, times: figures)
  }

  // MARK: The other processes

  static func gets(_ parent: Parent, _ number: UInt64) throws {
    let client = try parent.attach()
    let object = ObjectID.number(number)
    let missing = MobulaError(.notFound, "Object \(object) is not there.")
    var sum = 0
    func get() throws {
      guard let pinned = try client.pin(object) else { throw missing }
      sum &+= Int(pinned.bytes[5])
    }
    try get()
    let rates = try rate(batch: 100_000, for: 1, get)
    let times = try singles(200_000, get)
    let clock = singles(200_000) {}
    guard sum % 7 == 0 else { throw MobulaError(.corrupted, "Object \(object) has other bytes than were put.") }
    parent.say(
      "figures "
        + (try encoded(
          rates.rates("get and release", "million/s", per: 1e6) + times.quantiles("one get and release")
            + [Figure(name: "two readings of the clock, p50", value: clock.median, unit: "ns")])))
  }

  static func verifiedGets(_ parent: Parent, _ objects: Int) throws {
    let client = try parent.attach()
    var (hits, misses, broken) = (0, 0, 0)
    let end = nanoseconds() + Int(verifyingTime * 1e9)
    while nanoseconds() < end {
      for index in 0..<objects {
        let number = firstComing + UInt64(index)
        guard let pinned = try client.pin(.number(number)) else {
          misses += 1
          continue
        }
        hits += 1
        if !isWhole(pinned.bytes, number) { broken += 1 }
      }
    }
    parent.say("found \(hits) \(misses) \(broken)")
  }

  static func mapping(_ parent: Parent, _ number: UInt64) throws {
    let client = try parent.attach()
    let object = ObjectID.number(number)
    let start = nanoseconds()
    guard let pinned = try client.pin(object) else { throw MobulaError(.notFound, "Object \(object) is not there.") }
    var sum = Int(pinned.bytes[0])
    let first = nanoseconds()
    sum += SharedReads.touch(pinned.bytes)
    let all = nanoseconds()
    guard sum % 7 == 0 else { throw MobulaError(.corrupted, "Object \(object) has other bytes than were put.") }
    parent.say("times \(Double(first - start) / 1e9) \(Double(all - start) / 1e9)")
  }

  /// Every word of an object that comes and goes is the same: its number over how often it came.
  private static func isWhole(_ bytes: UnsafeRawBufferPointer, _ number: UInt64) -> Bool {
    let words = bytes.bindMemory(to: UInt64.self)
    guard words.count == comingSize / 8, words[0] >> 48 == number else { return false }
    var difference: UInt64 = 0
    for word in words { difference |= word ^ words[0] }
    return difference == 0
  }

  static func fill(_ memory: UnsafeMutableRawBufferPointer, _ number: UInt64, round: UInt64) {
    memory.bindMemory(to: UInt64.self).update(repeating: number << 48 | round & 0xFFFF_FFFF_FFFF)
  }

  static func number(_ index: Int) -> UInt64 { firstComing + UInt64(index) }
  static let evictedSize = comingSize
}
