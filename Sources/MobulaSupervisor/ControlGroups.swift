/// The cgroups that this process is in, and what they let it have: of every hierarchy, version 1 and 2, the least that
/// its own group and those around it allow.
package struct ControlGroups {
  /// A hierarchy as it is mounted here.
  private struct Mount {
    /// The group that is at the mount point, as in a container that sees only its own.
    var root: String
    var point: String
    /// Of version 1; none for version 2.
    var controllers: Set<Substring>
    var isUnified: Bool
  }

  private struct Membership {
    var controllers: [Substring]
    var path: String
  }

  private let mounts: [Mount]
  private let memberships: [Membership]
  private let read: (String) -> String?

  /// - Parameter read: the text of a file, `nil` where there is none.
  package init(read: @escaping (String) -> String?) {
    self.read = read
    memberships = (read("/proc/self/cgroup") ?? "").split(separator: "\n").compactMap { line in
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { return nil }
      return Membership(controllers: fields[1].split(separator: ","), path: String(fields[2]))
    }
    mounts = (read("/proc/self/mountinfo") ?? "").split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ")
      guard let dash = fields.firstIndex(of: "-"), dash >= 6, dash + 1 < fields.count,
        ["cgroup", "cgroup2"].contains(fields[dash + 1])
      else { return nil }
      return Mount(
        root: String(fields[3]), point: String(fields[4]), controllers: Set(fields.last!.split(separator: ",")),
        isUnified: fields[dash + 1] == "cgroup2")
    }
  }

  /// Bytes; `nil` where nothing limits them.
  package var memoryLimit: Int? {
    limits("memory", ["memory.limit_in_bytes"], ["memory.max", "memory.high"]) { text in
      // Without a limit version 1 says all pages that there can be.
      Int(text.trimmed).flatMap { 0..<1 << 60 ~= $0 ? Double($0) : nil }
    }.map { Int($0) }
  }

  /// CPUs, also parts of one; `nil` where nothing limits them.
  package var cpuLimit: Double? {
    let unified = limits("cpu", [], ["cpu.max"]) { text in
      let words = text.split(whereSeparator: \.isWhitespace).map { Double($0) }
      guard words.count == 2, let quota = words[0], let period = words[1], period > 0 else { return nil }
      return quota / period
    }
    let old = folders("cpu", isUnified: false).compactMap { folder -> Double? in
      guard let quota = read(folder + "/cpu.cfs_quota_us").flatMap({ Double($0.trimmed) }), quota > 0,
        let period = read(folder + "/cpu.cfs_period_us").flatMap({ Double($0.trimmed) }), period > 0
      else { return nil }
      return quota / period
    }
    return (old + [unified].compactMap(\.self)).min()
  }

  private func limits(_ controller: Substring, _ old: [String], _ unified: [String], _ parse: (String) -> Double?)
    -> Double?
  {
    var found: [Double] = []
    for (files, isUnified) in [(old, false), (unified, true)] {
      for folder in folders(controller, isUnified: isUnified) {
        for file in files { if let value = read("\(folder)/\(file)").flatMap(parse) { found.append(value) } }
      }
    }
    return found.min()
  }

  /// The folder of this process's group and of those around it, as far as they are mounted.
  private func folders(_ controller: Substring, isUnified: Bool) -> [String] {
    memberships.flatMap { membership -> [String] in
      guard isUnified ? membership.controllers.isEmpty : membership.controllers.contains(controller) else { return [] }
      return mounts.filter { $0.isUnified == isUnified && (isUnified || $0.controllers.contains(controller)) }.flatMap {
        mount -> [String] in
        var rest: Substring
        if mount.root == "/" {
          rest = membership.path.dropFirst()
        } else if membership.path == mount.root || membership.path.hasPrefix(mount.root + "/") {
          rest = membership.path.dropFirst(mount.root.count).drop { $0 == "/" }
        } else {
          rest = ""
        }
        // What is outside of this process's own view of the hierarchy.
        if rest.hasPrefix("..") { rest = "" }
        var folders = [mount.point]
        for part in rest.split(separator: "/") { folders.append("\(folders.last!)/\(part)") }
        return folders
      }
    }
  }
}

extension String {
  fileprivate var trimmed: Substring { self[...].drop(while: \.isWhitespace).prefix { !$0.isWhitespace } }
}
