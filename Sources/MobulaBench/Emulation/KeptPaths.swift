import FoundationEssentials
internal import Glibc

/// Which files and directories have to stay visible on a host that gets its own `/tmp`, `/run` and `/dev/shm`.
enum KeptPaths {
  /// The directories of which each host has its own.
  static let covered = ["/tmp", "/run", "/dev/shm"]

  /// What this process's executable and libraries need, plus `extra`.
  static func needed(_ extra: [String]) -> [String] {
    let maps = (try? Data(contentsOf: URL(filePath: "/proc/self/maps"))) ?? Data()
    return needed(maps: String(decoding: maps, as: UTF8.self), extra: extra.compactMap(resolved))
  }

  /// From the text of `/proc/self/maps`, take the directories of executable files (their neighbours may be
  /// opened later); a file right in a covered directory is kept alone, lest the directory be shared.
  static func needed(maps: String, extra: [String]) -> [String] {
    var paths = extra.filter { isCovered($0) }
    for line in maps.split(separator: "\n") {
      let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
      guard fields.count == 6, fields[1].contains("x") else { continue }
      let file = String(fields[5].drop { $0 == " " })
      guard isCovered(file), !file.hasSuffix(" (deleted)") else { continue }
      let directory = String(file[..<file.lastIndex(of: "/")!])
      paths.append(covered.contains(directory) ? file : directory)
    }
    let sorted = Set(paths).sorted()
    return sorted.filter { path in !sorted.contains { path.hasPrefix("\($0)/") } }
  }

  private static func isCovered(_ path: String) -> Bool { covered.contains { path.hasPrefix("\($0)/") } }

  private static func resolved(_ path: String) -> String? {
    guard let pointer = realpath(path, nil) else { return nil }
    defer { free(pointer) }
    return String(cString: pointer)
  }
}
