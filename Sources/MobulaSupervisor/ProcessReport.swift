import FoundationEssentials
package import MobulaCore

/// One of a supervisor's processes, as the supervisor writes it down for `mobula status`.
package struct ProcessReport: Codable, Hashable, Sendable {
  package var name: Name
  /// `nil` while it does not run.
  package var process: Int32?
  /// How often it ended since the supervisor was started.
  package var ends = 0
  /// How it ended last.
  package var lastEnd: String?
  /// Why it refused to run, in its own words, if it did.
  package var lastWords: String?
  /// How many seconds after its end it is started again; `nil` while it runs.
  package var startsAgainAfter: Double?

  /// In one line, for people; `nil` while there is nothing to say of it.
  package var trouble: String? {
    guard let lastEnd, let startsAgainAfter else { return nil }
    let seconds = startsAgainAfter < 1 ? "a moment" : "\(Int(startsAgainAfter.rounded())) s"
    return
      "\(name) does not run: it ended \(ends == 1 ? "once" : "\(ends) times"), the last time with \(lastEnd); it is started again \(seconds) after that. \(lastWords ?? "See the log.")"
  }
}

extension RunDirectory {
  private var processesFile: String { path + "/processes.json" }

  /// Best effort: without it, status says nothing of them.
  package func write(_ processes: [ProcessReport]) {
    try? JSONEncoder().encode(processes).write(to: URL(filePath: processesFile), options: .atomic)
  }

  /// What the supervisor that runs here last wrote down; nothing without one.
  package func processes() -> [ProcessReport] {
    guard supervisor() != nil, let data = try? Data(contentsOf: URL(filePath: processesFile)) else { return [] }
    return (try? JSONDecoder().decode([ProcessReport].self, from: data)) ?? []
  }
}
