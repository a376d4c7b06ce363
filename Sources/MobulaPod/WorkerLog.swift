import MobulaCore

/// The end of a worker's log, for the driver: what it said before it ended.
enum WorkerLog {
  static let lines = 20
  private static let lastBytes = 32_768
  private static let longestLine = 300

  /// The last lines, each on one of its own and indented, in words that say where the rest is; of a trap those from its
  /// message on, which a backtrace may have followed.
  static func end(of path: String) -> String {
    let all = endOfFile(path, bytes: lastBytes).split(separator: "\n", omittingEmptySubsequences: true)
    guard !all.isEmpty else { return "Its log \(path) is empty." }
    let start = all.lastIndex { $0.contains("Fatal error") } ?? max(0, all.count - lines)
    let shown = all[max(start, 0)...].prefix(lines).map { "  " + printable($0.prefix(longestLine)) }
    return "The last lines of its log \(path):\n" + shown.joined(separator: "\n")
  }

  /// A program may write anything; a terminal shall not obey it.
  private static func printable(_ line: Substring) -> String {
    String(
      String.UnicodeScalarView(
        line.unicodeScalars.map { scalar in
          switch scalar.properties.generalCategory {
          case .control, .format, .lineSeparator, .paragraphSeparator: scalar == "\t" ? " " : "\u{FFFD}"
          default: scalar
          }
        }))
  }
}
