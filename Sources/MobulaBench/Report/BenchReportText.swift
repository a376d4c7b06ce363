import MobulaCore
import MobulaTerminal

extension BenchCase {
  /// `replication-5 relay, 3 loaders`.
  public var title: String {
    let sources = sources.map { " \($0.rawValue)" } ?? ""
    return "\(id)\(sources), \(loaders.count) \(loaders.count == 1 ? "loader" : "loaders")"
  }

  /// The case for people: a summary, and a line per loader. `size` is the model's, in bytes.
  public func text(size: Int) -> String {
    var facts = ["slowest \(Self.time(slowest))"]
    if let limit, let ratio { facts.append("\(fixed(ratio, digits: 2)) × the limit of \(Self.time(limit))") }
    if let predicted { facts.append("simulated \(Self.time(predicted))") }
    if let s3Bytes { facts.append("\(ByteCount(s3Bytes)) from S3") }
    if let wireBytes { facts.append("\(ByteCount(wireBytes)) on the wire") }
    var table = TextTable([
      ("host", .left), ("pod", .left), ("ready", .right), ("MB/s", .right), ("limit ×", .right), ("touched", .right),
      ("copied", .right),
    ])
    for loader in loaders {
      table.add([
        loader.host, loader.pod, loader.error == nil ? Self.time(loader.seconds) : "never",
        loader.error == nil ? Self.rate(size, loader.seconds) : "-",
        limit.map { fixed(loader.seconds / $0, digits: 2) } ?? "-", Self.time(loader.touched),
        "\(ByteCount(loader.bytesCopied))",
      ])
    }
    var notes: [String] = []
    for loader in loaders {
      if let error = loader.error { notes.append("  \(loader.host) has no model: \(error.message)") }
    }
    return (["\(title): \(facts.joined(separator: ", "))"] + table.lines(indent: "  ") + notes).joined(separator: "\n")
  }

  /// What `ratio` would be if the simulation were right.
  var simulatedRatio: Double? {
    guard let limit, let predicted else { return nil }
    return predicted / limit
  }

  /// Seconds from 1 s on, milliseconds below, and microseconds where these would be 0.
  static func time(_ seconds: Double) -> String {
    if seconds >= 0.9995 { return "\(fixed(seconds, digits: 3)) s" }
    let milliseconds = seconds * 1000
    return "\(fixed(milliseconds, digits: milliseconds < 10 ? 3 : milliseconds < 100 ? 1 : 0)) ms"
  }

  static func rate(_ size: Int, _ seconds: Double) -> String {
    seconds > 0 ? fixed(Double(size) / seconds / 1e6, digits: 1) : "-"
  }
}

extension BenchReport {
  /// One line a case: what the bench prints last.
  public func summary() -> String {
    var table = TextTable([
      ("case", .left), ("sources", .left), ("loaders", .right), ("slowest", .right), ("MB/s", .right),
      ("limit", .right), ("ratio", .right), ("simulated", .right), ("copied", .right), ("from S3", .right),
      ("on the wire", .right),
    ])
    for item in cases {
      table.add([
        item.id, item.sources?.rawValue ?? "-", "\(item.loaders.count)", BenchCase.time(item.slowest),
        BenchCase.rate(size, item.slowest), item.limit.map(BenchCase.time) ?? "-",
        item.ratio.map { fixed($0, digits: 2) } ?? "-", item.simulatedRatio.map { fixed($0, digits: 2) } ?? "-",
        "\(ByteCount(item.loaders.map(\.bytesCopied).max() ?? 0))",
        item.s3Bytes.map { "\(ByteCount($0))" } ?? "-", item.wireBytes.map { "\(ByteCount($0))" } ?? "-",
      ])
    }
    return table.lines().joined(separator: "\n")
  }
}
