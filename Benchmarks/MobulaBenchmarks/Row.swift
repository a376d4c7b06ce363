import FoundationEssentials
import MobulaCore

/// One number of a benchmark.
struct Figure: Codable {
  let name: String
  let value: Double
  /// Empty for counts.
  var unit = ""

  /// Few digits, and as many as matter.
  var text: String {
    let digits = value.magnitude >= 100 || value == value.rounded() ? 1.0 : value.magnitude >= 10 ? 100 : 10_000
    let rounded = (value * digits).rounded() / digits
    let number = rounded == rounded.rounded() && rounded.magnitude < 1e15 ? "\(Int(rounded))" : "\(rounded)"
    return unit.isEmpty ? number : "\(number) \(unit)"
  }
}

/// What a benchmark found: counts have thresholds, times are for people.
struct Row: Codable {
  let name: String
  var counts: [Figure] = []
  var times: [Figure] = []
  /// Why there are no figures.
  var skipped: String?
  /// Which system calls there were, of the client's threads.
  var detail: String?
}

/// The most that each count of each row may be.
struct Thresholds: Codable {
  var rows: [String: [String: Double]]

  /// - Throws: `MobulaError` (`invalidArgument`).
  static func read(_ path: String) throws -> Thresholds {
    do {
      return Thresholds(
        rows: try JSONDecoder().decode([String: [String: Double]].self, from: Data(contentsOf: URL(filePath: path))))
    } catch {
      throw MobulaError(
        .invalidArgument, "The thresholds in \(path) can't be read (\(error)): name the file with --thresholds FILE.")
    }
  }

  /// One sentence for each breach.
  ///
  /// - Parameter isWhole: whether all rows were asked for, so that a missing one is a breach.
  func breaches(in found: [Row], isWhole: Bool) -> [String] {
    var result: [String] = []
    for (name, limits) in rows.sorted(by: { $0.key < $1.key }) {
      guard let row = found.first(where: { $0.name == name }) else {
        if isWhole {
          result.append("\"\(name)\" has thresholds, but was not measured: correct the name or the thresholds.")
        }
        continue
      }
      if row.skipped != nil { continue }
      for (count, limit) in limits.sorted(by: { $0.key < $1.key }) {
        guard let figure = row.counts.first(where: { $0.name == count }) else {
          result.append("\"\(name)\" has no count \"\(count)\": correct the thresholds.")
          continue
        }
        if figure.value > limit {
          let limit = Figure(name: count, value: limit)
          result.append("\"\(name)\": \(count) is \(figure.text), and may be at most \(limit.text).")
        }
      }
    }
    for row in found where row.skipped == nil && !row.counts.isEmpty && rows[row.name] == nil {
      result.append("\"\(row.name)\" has no thresholds: add them to the file.")
    }
    return result
  }
}

/// The rows for a terminal.
func table(_ rows: [Row]) -> String {
  var lines: [String] = []
  func cells(_ cells: [[String]]) {
    let widths = (0..<(cells.map(\.count).max() ?? 0)).map { column in
      cells.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    for row in cells {
      var line = ""
      for (column, cell) in row.enumerated() {
        let gap = String(repeating: " ", count: widths[column] - cell.count)
        line += column == 0 ? cell + gap : "  " + gap + cell
      }
      lines.append(line)
    }
  }
  let counted = rows.filter { !$0.counts.isEmpty }
  if !counted.isEmpty {
    var names: [String] = []
    for row in counted { for figure in row.counts where !names.contains(figure.name) { names.append(figure.name) } }
    cells(
      [["an operation's"] + names]
        + counted.map { row in [row.name] + names.map { name in row.counts.first { $0.name == name }?.text ?? "" } })
    for row in counted { if let detail = row.detail { lines.append("  \(row.name): \(detail)") } }
  }
  for row in rows where !row.times.isEmpty {
    if !lines.isEmpty { lines.append("") }
    lines.append(row.name)
    cells(row.times.map { ["  " + $0.name, $0.text] })
  }
  for row in rows { if let reason = row.skipped { lines.append("\(row.name): skipped: \(reason)") } }
  return lines.joined(separator: "\n")
}

func encoded(_ value: some Encodable) throws -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys]
  return String(decoding: try encoder.encode(value), as: UTF8.self)
}

func decoded<Value: Decodable>(_ type: Value.Type, _ text: String) throws -> Value {
  try JSONDecoder().decode(type, from: Data(text.utf8))
}
