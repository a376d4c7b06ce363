import Mobula
import MobulaCore
import MobulaTerminal

/// Who has how much of an object that is pushed to many hosts, in words and bars.
struct BroadcastPicture {
  let title: String
  /// Bytes of the object.
  let size: Int
  var states: [BroadcastState] = []

  private func bytes(_ state: BroadcastState) -> Int { state.isComplete ? size : min(size, state.verified.bytes) }
  private func percent(_ bytes: Double, of all: Double) -> Int { all > 0 ? Int(bytes * 100 / all) : 100 }

  /// Whoever ends a broadcast makes nothing fail.
  private static func hasFailed(_ state: BroadcastState) -> Bool {
    state.failure.map { $0.code != .cancelled } ?? false
  }

  /// What all hosts together have.
  var summary: String {
    let done = states.count(where: \.isComplete)
    let failed = states.count(where: Self.hasFailed)
    let stopped = states.count { $0.failure?.code == .cancelled }
    let share = percent(states.reduce(0) { $0 + Double(bytes($1)) }, of: Double(size) * Double(states.count))
    // Whole bytes are no object yet.
    let all = done < states.count ? min(share, 99) : share
    let failures = (failed > 0 ? ", \(failed) failed" : "") + (stopped > 0 ? ", \(stopped) stopped" : "")
    return "\(title.printable): \(ByteCount(size)), \(done) of \(states.count) hosts\(failures), \(all)%"
  }

  /// The summary, and a line for each host as far as there are rows: failures first, then who lacks most.
  func lines(width: Int, rows: Int) -> [String] {
    let ordered = states.sorted {
      ($0.failure == nil ? 1 : 0, bytes($0), $0.name) < ($1.failure == nil ? 1 : 0, bytes($1), $1.name)
    }
    let isCut = ordered.count > max(1, rows - 1)
    let shown = ordered.prefix(isCut ? max(1, rows - 2) : ordered.count)
    let names = shown.map { "\($0.name)".count }.max() ?? 0
    var lines = [summary]
    for state in shown {
      let title = "\(state.name)"
      let name = title + String(repeating: " ", count: names - title.count)
      if let failure = state.failure, Self.hasFailed(state) {
        lines.append("  \(name)  failed: \(failure.message.printable)")
      } else {
        let cells = max(4, min(30, width - names - 12))
        let full = size > 0 ? bytes(state) * cells / size : cells
        let bar = String(repeating: "#", count: full) + String(repeating: "-", count: cells - full)
        lines.append("  \(name)  [\(bar)]  \(percent(Double(bytes(state)), of: Double(size)))%")
      }
    }
    if isCut {
      let rest = ordered.dropFirst(shown.count)
      lines.append("  and \(rest.count) more, \(rest.count(where: \.isComplete)) of them done")
    }
    return lines.map { String($0.prefix(max(1, width))) }
  }
}
