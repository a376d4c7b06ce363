import FoundationEssentials
import Glibc
import MobulaCore

/// A benchmark: some rows.
struct Benchmark: Sendable {
  /// The rows' names, for `--filter`.
  let names: [String]
  let isTimed: Bool
  let run: @Sendable (Options) throws -> [Row]
}

@main
struct MobulaBenchmarks {
  static func main() {
    let arguments = Array(CommandLine.arguments.dropFirst())
    do {
      if arguments.first == Role.marker {
        try Role.run(Array(arguments.dropFirst()))
      } else {
        exit(try run(Options(arguments)))
      }
    } catch {
      complain("\(error)")
      exit(2)
    }
  }

  private static func run(_ options: Options) throws -> CInt {
    if options.showsHelp {
      print(Options.help)
      return 0
    }
    // Before anything is measured: a wrong name is told at once.
    let thresholds = options.checks ? try Thresholds.read(options.thresholds ?? thresholdsPath) : nil
    let all = (CountBenchmarks.all + TimeBenchmarks.all).filter { !options.checks || !$0.isTimed }
    let chosen = all.filter { benchmark in
      options.filter.map { filter in benchmark.names.contains { $0.contains(filter) } } ?? true
    }
    guard !chosen.isEmpty else {
      let names = all.flatMap(\.names).map { "\"\($0)\"" }.joined(separator: ", ")
      throw MobulaError(.invalidArgument, "No benchmark has \"\(options.filter ?? "")\" in its name: \(names).")
    }
    var rows: [Row] = []
    for benchmark in chosen {
      do {
        rows += try benchmark.run(options)
      } catch let skipped as Skipped {
        rows += benchmark.names.map { Row(name: $0, skipped: skipped.reason) }
      }
    }
    if let filter = options.filter { rows.removeAll { !$0.name.contains(filter) } }
    if let path = options.json {
      let text = try encoded(rows) + "\n"
      if path == "-" { print(text, terminator: "") } else { try Data(text.utf8).write(to: URL(filePath: path)) }
    }
    if options.json != "-" { print(table(rows)) }
    let breaches = thresholds?.breaches(in: rows, isWhole: options.filter == nil) ?? []
    for breach in breaches { complain(breach) }
    let skipped = rows.count { $0.skipped != nil }
    let verdict =
      thresholds == nil ? "" : breaches.isEmpty ? ", all within their thresholds" : ", \(breaches.count) breached"
    complain("\(rows.count - skipped) measured, \(skipped) skipped\(verdict).")
    return breaches.isEmpty ? 0 : 1
  }

  /// The committed file, from wherever this is started.
  private static var thresholdsPath: String {
    let here = "Benchmarks/thresholds.json"
    if access(here, R_OK) == 0 { return here }
    let source = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
    return "/\(source)/thresholds.json"
  }

  private static func complain(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    _ = bytes.withUnsafeBytes { write(2, $0.baseAddress!, $0.count) }
  }
}
