import FoundationEssentials
import Glibc
package import MobulaCore

/// What this machine is, and what of it this process may use.
package enum Machine {
  /// CPUs that this process may run on, by affinity and cgroup; parts of one count from 1 on, since a task asks for one.
  package static func cpus() -> Double {
    let online = Double(max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN))))
    let allowed = allowedCPUs(status: (try? readText("/proc/self/status")) ?? "").map { Double($0) } ?? online
    let quota = ControlGroups { try? readText($0) }.cpuLimit ?? online
    return max(1, min(online, allowed, quota))
  }

  /// How many CPUs the mask of a process's status allows.
  package static func allowedCPUs(status: String) -> Int? {
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("Cpus_allowed_list:") }) else {
      return nil
    }
    let list = line.dropFirst("Cpus_allowed_list:".count).filter { !$0.isWhitespace }
    var count = 0
    for part in list.split(separator: ",") {
      let ends = part.split(separator: "-").map { Int($0) }
      guard 1...2 ~= ends.count, let first = ends[0], let last = ends[ends.count - 1], 0...last ~= first, last < 1 << 20
      else { return nil }
      count += last - first + 1
    }
    return count > 0 ? count : nil
  }

  /// The memory that this process and what it starts may use, and what says so.
  package static func memory() -> (bytes: ByteCount, source: String) {
    var bytes = sysconf(CInt(_SC_PHYS_PAGES)) * pageSize
    var source = "this machine's memory"
    // In some containers this is less than what the system has.
    let total = (try? readText("/proc/meminfo"))?.split(separator: "\n").first { $0.hasPrefix("MemTotal:") }
    if let words = total?.split(separator: " "), words.count >= 2, let kilobytes = Int(words[1]),
      0..<bytes / 1024 ~= kilobytes
    {
      bytes = kilobytes * 1024
    }
    if let limit = ControlGroups(read: { try? readText($0) }).memoryLimit, limit < bytes {
      bytes = limit
      source = "the memory of this process's cgroup"
    }
    return (ByteCount(bytes), source)
  }

  package static func name() -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    guard gethostname(&buffer, buffer.count - 1) == 0 else { return "host" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// What of a machine's memory goes to the store, to the pods' work, and to Mobula's own processes.
package struct MemoryShares {
  /// What there is.
  package let machine: ByteCount
  /// What there is besides, in the words of `Machine.memory`.
  package let source: String

  package init(machine: ByteCount, source: String) {
    self.machine = machine
    self.source = source
  }

  /// The store's capacity where nobody says one.
  package var defaultCapacity: ByteCount { ByteCount(machine.bytes / 10 * 3) }

  /// What Mobula's own processes and the index take, at most.
  package var reserve: Int { min(256_000_000, machine.bytes / 10) }

  /// What the pods' work may ask for, beside a store of this capacity.
  package func memory(beside capacity: ByteCount) -> ByteCount {
    ByteCount(max(0, machine.bytes - capacity.bytes - reserve))
  }

  /// - Returns: a warning for a store that leaves little.
  /// - Throws: `MobulaError` (`invalidArgument`) for one that there is no memory for.
  package func check(_ capacity: ByteCount) throws(MobulaError) -> String? {
    guard capacity.bytes <= machine.bytes - reserve else {
      throw MobulaError(
        .invalidArgument,
        "--capacity \(capacity.roundedUp) is more than there is: \(source) is \(machine), of which a store can have at most \(max(0, machine.bytes - reserve) / 1_000_000)MB."
      )
    }
    guard capacity.bytes > machine.bytes / 10 * 8 else { return nil }
    return
      "--capacity \(capacity) leaves little of \(source) (\(machine)): once the store is full, the system may end processes for want of memory."
  }
}

/// Numbers that grow with every start.
package enum Incarnation {
  /// Milliseconds since 1970.
  package static func now() -> UInt64 { UInt64(Date().timeIntervalSince1970 * 1000) }
}

/// A small text file, whole.
package func readText(_ path: String) throws -> String {
  String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
}
