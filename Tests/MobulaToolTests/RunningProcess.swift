import FoundationEssentials
import MobulaCore

/// A process of this machine, as `/proc` shows it.
struct RunningProcess: Hashable {
  let pid: Int32
  let parent: Int32
  /// Clock ticks since the machine started: with the number, what makes a process itself.
  let startTime: Int
  let arguments: [String]
  let environment: [String]

  /// The last part of the executable's path, by its first argument.
  var program: String { arguments.first?.split(separator: "/").last.map(String.init) ?? "" }

  /// What comes after `name=`.
  func variable(_ name: String) -> String? {
    environment.first { $0.hasPrefix("\(name)=") }.map { String($0.dropFirst(name.count + 1)) }
  }

  /// All processes.
  static func all() -> [RunningProcess] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { Int32($0) }.compactMap { RunningProcess($0) }
  }

  /// `nil` for one that is gone meanwhile.
  private init?(_ pid: Int32) {
    func text(_ file: String) -> String? {
      (try? Data(contentsOf: URL(filePath: "/proc/\(pid)/\(file)"))).map { String(decoding: $0, as: UTF8.self) }
    }
    func strings(_ file: String) -> [String] { (text(file) ?? "").split(separator: "\0").map(String.init) }
    // Behind the name, which is in parentheses and may have spaces: the state, the parent, … the start.
    guard let fields = text("stat")?.split(separator: ")").last?.split(separator: " "), fields.count > 19,
      let parent = Int32(fields[1]), let startTime = Int(fields[19])
    else { return nil }
    self.pid = pid
    self.parent = parent
    self.startTime = startTime
    arguments = strings("cmdline")
    environment = strings("environ")
  }

  /// Among `processes`, the one with number `root`, and all below it.
  static func tree(of root: Int32, in processes: [RunningProcess]) -> [RunningProcess] {
    let children = Dictionary(grouping: processes, by: \.parent)
    var result = processes.filter { $0.pid == root }
    var next = 0
    while next < result.count {
      result += children[result[next].pid] ?? []
      next += 1
    }
    return result
  }
}
