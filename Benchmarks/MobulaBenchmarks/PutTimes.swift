import Dispatch
import Glibc
import MobulaCore
import MobulaStore

/// Puts, and what others get of them.
enum PutTimes {
  static let smallName = "rate of puts of 200 bytes"
  static let createsName = "rate of objects of 1 MB"
  static let bigName = "puts of gigabytes, warm"
  private static let rounds = 5

  static func smallRows(_ options: Options) throws -> [Row] {
    let count = options.isQuick ? 20_000 : 200_000
    let host = try BenchStore(capacity: 1 << 30)
    defer { host.close() }
    let putter = try Child(.timedSmallPuts, host, [count])
    let getter = try Child(.timedGetsOfAll, host, [count])
    var (sealed, confirmed, got) = (Samples(), Samples(), Samples())
    for _ in 0..<rounds {
      putter.say("go")
      let times = try putter.expect("times").split(separator: " ").compactMap { Double($0) }
      sealed.add(Double(count) / times[0])
      confirmed.add(Double(count) / times[1])
      getter.say("go")
      got.add(Double(count) / (Double(try getter.expect("time")) ?? .infinity))
      // One that stayed would be refused in the next round, which is faster than taking it.
      for index in 0..<count where !host.store.delete(.number(UInt64(index))) {
        throw MobulaError(.notFound, "Object \(index) of \(count), which was confirmed, could not be deleted.")
      }
    }
    putter.say("end")
    getter.say("end")
    return [
      Row(
        name: smallName,
        times: sealed.rates("sealed", "thousand/s", per: 1e3) + confirmed.rates("confirmed", "thousand/s", per: 1e3)
          + got.rates("gets of each by another process right after", "million/s", per: 1e6))
    ]
  }

  static func createRows(_ options: Options) throws -> [Row] {
    let count = options.isQuick ? 500 : 5000
    let host = try BenchStore(capacity: 1 << 30, keepsNewest: 32)
    defer { host.close() }
    let child = try Child(.timedCreates, host, [count])
    return [Row(name: createsName, times: try decoded([Figure].self, child.expect("figures")))]
  }

  static func bigRows(_ options: Options) throws -> [Row] {
    // Source and copy of its own, the object, and room for others.
    let size = min(options.isQuick ? 100_000_000 : 800_000_000, availableMemory() / 5) / 8 * 8
    guard size >= 10_000_000 else { throw Skipped(reason: "less than 50 MB of memory is free") }
    let host = try BenchStore(capacity: 2 * size + (64 << 20))
    defer { host.close() }
    let child = try Child(.timedBigPuts, host, [size])
    return [Row(name: bigName, times: try decoded([Figure].self, child.expect("figures")))]
  }

  // MARK: The other processes

  static func smallPuts(_ parent: Parent, _ count: Int) throws {
    let client = try parent.attach()
    let content = [UInt8](repeating: 7, count: 200)
    while try parent.hear().word == "go" {
      let start = nanoseconds()
      for index in 0..<count {
        let draft = try client.draft(.number(UInt64(index)), size: 200)
        content.withUnsafeBytes { draft.memory.copyMemory(from: $0) }
        try draft.seal()
      }
      let sealed = nanoseconds()
      try client.confirm(.number(UInt64(count - 1)))
      let confirmed = nanoseconds()
      parent.say("times \(Double(sealed - start) / 1e9) \(Double(confirmed - start) / 1e9)")
    }
  }

  static func getsOfAll(_ parent: Parent, _ count: Int) throws {
    let client = try parent.attach()
    while try parent.hear().word == "go" {
      let time = try seconds {
        for index in 0..<count {
          guard let pinned = try client.pin(.number(UInt64(index))), pinned.bytes[199] == 7 else {
            throw MobulaError(.notFound, "Object \(index) of \(count), which was confirmed, is not there.")
          }
        }
      }
      parent.say("time \(time)")
    }
  }

  static func creates(_ parent: Parent, _ count: Int) throws {
    let client = try parent.attach()
    let content = [UInt8](repeating: 7, count: 1_000_000)
    var next: UInt64 = 0
    func many(_ make: (consuming ObjectDraft) throws -> Void) throws -> Samples {
      var samples = Samples()
      for _ in 0..<rounds {
        let time = try seconds {
          for _ in 0..<count / rounds {
            next += 1
            try make(client.draft(.number(next), size: content.count))
          }
        }
        samples.add(Double(count / rounds) / time)
      }
      return samples
    }
    // Once for the memory.
    _ = try many { try $0.seal() }
    let sealed = try many { try $0.seal() }
    let written = try many { draft in
      var writer = draft.writer()
      content.withUnsafeBytes { writer.append($0) }
      try draft.seal(checksums: writer.finish())
    }
    parent.say(
      "figures "
        + (try encoded(
          sealed.rates("created and sealed, which reads all bytes", "thousand/s", per: 1e3)
            + written.rates("written, too", "thousand/s", per: 1e3))))
  }

  static func bigPuts(_ parent: Parent, _ size: Int) throws {
    let client = try parent.attach()
    let source = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: pageSize)
    let target = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: pageSize)
    defer {
      source.deallocate()
      target.deallocate()
    }
    // Not all alike, so that bytes in a wrong place show.
    for (index, _) in source.bindMemory(to: UInt64.self).enumerated() {
      source.storeBytes(of: UInt64(index) &* 0x9E37_79B9_7F4A_7C15, toByteOffset: index * 8, as: UInt64.self)
    }
    target.initializeMemory(as: UInt8.self, repeating: 4)
    var (copies, sharedCopies, puts, alone, cold) = (Samples(), Samples(), Samples(), Samples(), Samples())
    for round in 0..<UInt64(2 * rounds + 1) {
      copies.add(Double(size) / seconds { target.copyMemory(from: UnsafeRawBufferPointer(source)) })
      sharedCopies.add(Double(size) / (try seconds { try copyByTwo(from: source, to: target) }))
      // In turns, so that what else the machine does meets both.
      let threads = round % 2 == 0 ? nil : 1
      let time = try seconds {
        let draft = try client.draft(.number(round), size: size)
        var writer = ChecksummingWriter(draft.memory, geometry: draft.geometry, threads: threads)
        writer.append(UnsafeRawBufferPointer(source))
        try draft.seal(checksums: writer.finish())
        try client.confirm(.number(round))
      }
      switch (round, threads) {
      case (0, _): cold.add(Double(size) / time)
      case (_, nil): puts.add(Double(size) / time)
      default: alone.add(Double(size) / time)
      }
      guard let pinned = try client.pin(.number(round)), pinned.bytes.count == size,
        memcmp(pinned.bytes.baseAddress!, source.baseAddress!, size) == 0
      else { throw MobulaError(.corrupted, "The object that was put has other bytes than its source.") }
      _ = consume pinned
      try parent.delete(round)
    }
    parent.say(
      "figures "
        + (try encoded(
          [Figure(name: "size, all bytes verified", value: Double(size) / 1e6, unit: "MB")]
            + puts.rates("put, two threads", "GB/s", per: 1e9) + alone.rates("put, one thread", "GB/s", per: 1e9)
            + sharedCopies.rates("memcpy, two threads", "GB/s", per: 1e9)
            + copies.rates("memcpy, one thread", "GB/s", per: 1e9) + [
              Figure(name: "two threads' put over memcpy, medians", value: puts.median / sharedCopies.median),
              Figure(name: "one thread's put over memcpy, medians", value: alone.median / copies.median),
              Figure(name: "the first put, into new memory", value: cold.best / 1e9, unit: "GB/s"),
            ])))
  }

  /// Copies with the help of a second thread, as a put does, but without checksums.
  private static func copyByTwo(
    from source: UnsafeMutableRawBufferPointer, to target: UnsafeMutableRawBufferPointer
  ) throws {
    let half = source.count / 2
    // The threads have different halves, and both are done when this returns.
    nonisolated(unsafe) let (source, target) = (source, target)
    let isDone = DispatchSemaphore(value: 0)
    detachThread(named: "copy") {
      memcpy(target.baseAddress! + half, source.baseAddress! + half, source.count - half)
      isDone.signal()
    }
    memcpy(target.baseAddress!, source.baseAddress!, half)
    isDone.wait()
  }
}
