internal import MobulaCore

/// Rows of text in aligned columns. What a terminal would act on is escaped.
public struct TextTable {
  public enum Alignment { case left, right }

  private let columns: [(title: String, alignment: Alignment)]
  private var rows: [[String]] = []
  /// What is longer stands out of its column, which is no wider for it.
  private static let widest = 60
  /// As wide as the lines that were taken before.
  private var least: [Int] = []

  public init(_ columns: [(title: String, alignment: Alignment)]) { self.columns = columns }

  /// Adds a row with one text a column.
  public mutating func add(_ row: [String]) {
    precondition(row.count == columns.count, "\(row.count) texts for \(columns.count) columns")
    rows.append(row.map(\.printable))
  }

  /// The lines, each beginning with `indent` and without trailing spaces.
  public func lines(indent: String = "") -> [String] { lines(of: [columns.map(\.title)] + rows, widths, indent) }

  /// The lines that were added since this was asked last, the titles before the first. Columns become wider with what
  /// is added, never narrower.
  public mutating func takeLines() -> [String] {
    let widths = widths
    let lines = lines(of: (least.isEmpty ? [columns.map(\.title)] : []) + rows, widths, "")
    (rows, least) = ([], widths)
    return lines
  }

  private var widths: [Int] {
    columns.indices.map { column in
      let width = max(columns[column].title.count, least.isEmpty ? 0 : least[column])
      return rows.reduce(width) { $1[column].count > Self.widest ? $0 : max($0, $1[column].count) }
    }
  }

  private func lines(of rows: [[String]], _ widths: [Int], _ indent: String) -> [String] {
    rows.map { row in
      let cells = columns.indices.map { column in
        let padding = String(repeating: " ", count: max(0, widths[column] - row[column].count))
        return columns[column].alignment == .left ? row[column] + padding : padding + row[column]
      }
      var line = indent + cells.joined(separator: "  ")
      while line.last == " " { line.removeLast() }
      return line
    }
  }
}
