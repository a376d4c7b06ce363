import FoundationEssentials
import MobulaCore

/// One of a supervisor's processes, as the supervisor writes it down for `mobula status`.
struct ProcessReport: Codable, Hashable, Sendable {
  var name: Name
  /// `nil` while it does not run.
  var process: Int32?
  /// How often it ended since the supervisor was started.
  var ends = 0
  /// How it ended last.
  var lastEnd: String?
  /// How many seconds after its end it is started again; `nil` while it runs.
  var startsAgainAfter: Double?

  /// In one line, for people; `nil` while there is nothing to say of it.
  var trouble: String? {
    guard let lastEnd, let startsAgainAfter else { return nil }
    let seconds = startsAgainAfter < 1 ? "a moment" : "\(Int(startsAgainAfter.rounded())) s"
    return
      "\(name) does not run: it ended \(ends == 1 ? "once" : "\(ends) times"), the last time with \(lastEnd); it is started again \(seconds) after that. See the log."
  }
}

extension RunDirectory {
  private var processesFile: String { path + "/processes.json" }

  /// Best effort: without it, status says nothing of them.
  func write(_ processes: [ProcessReport]) {
    try? JSONEncoder().encode(processes).write(to: URL(filePath: processesFile), options: .atomic)
  }

  /// What the supervisor that runs here last wrote down; nothing without one.
  func processes() -> [ProcessReport] {
    guard supervisor() != nil, let data = try? Data(contentsOf: URL(filePath: processesFile)) else { return [] }
    return (try? JSONDecoder().decode([ProcessReport].self, from: data)) ?? []
  }
}
