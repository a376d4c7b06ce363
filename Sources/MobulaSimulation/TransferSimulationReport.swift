package import FoundationEssentials
internal import MobulaCore
internal import MobulaTransfer

/// What a simulated transfer came to.
package struct TransferSimulationReport: Sendable {
  package let receivers: Int
  package let size: Int
  package let chunkSize: Int
  /// Seconds in which one receiver could have the object at best.
  package let limit: Double
  /// Seconds until each host that neither died nor was slow had the object, the first one first.
  package let completions: [Double]
  /// Of the hosts that were slow.
  package let slowCompletions: [Double]
  package let dead: Int
  /// Living hosts that did not get the object.
  package let failed: Int
  package let bytesFromMaker: Int
  /// What receivers sent, the least first.
  package let bytesSent: [Int]
  package let headMessagesPerHost: Double
  package let headBytesPerHost: Double

  package init(_ simulation: TransferSimulation) {
    let options = simulation.options
    receivers = options.receivers
    size = options.geometry.objectSize
    chunkSize = options.geometry.chunkSize
    limit = options.limit.inSeconds
    var slow: Set<Int> = []
    for case (_, .slow(let host, _)) in options.faults { slow.insert(host) }
    var completions: [Double] = []
    var slowCompletions: [Double] = []
    var dead = 0
    var failed = 0
    for host in stride(from: 1, through: options.receivers, by: 1) {
      if !simulation.isAlive(host) {
        dead += 1
      } else if let time = simulation.completion(of: host)?.inSeconds {
        if slow.contains(host) { slowCompletions.append(time) } else { completions.append(time) }
      } else {
        failed += 1
      }
    }
    self.completions = completions.sorted()
    self.slowCompletions = slowCompletions.sorted()
    self.dead = dead
    self.failed = failed
    bytesFromMaker = simulation.bytesSent(by: 0)
    bytesSent = stride(from: 1, through: options.receivers, by: 1).map { simulation.bytesSent(by: $0) }.sorted()
    headMessagesPerHost = Double(simulation.headMessages) / Double(options.receivers)
    headBytesPerHost = Double(simulation.headBytes) / Double(options.receivers)
  }

  /// The time within which this part of the hosts was complete; that of the last for 1.
  package func percentile(_ part: Double) -> Double? {
    completions.isEmpty
      ? nil : completions[max(0, min(completions.count, Int((part * Double(completions.count)).rounded(.up))) - 1)]
  }

  /// What the tool writes as JSON: seconds and bytes.
  private struct Figures: Encodable {
    var hosts: Int
    var size: Int
    var limit: Double
    var p50: Double?
    var p99: Double?
    var last: Double?
    var bytesFromMaker: Int
    var headMessagesPerHost: Double
    var headBytesPerHost: Double
    var slowLast: Double?
    var dead: Int
    var failed: Int
  }

  package var json: Data {
    get throws {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      return try encoder.encode(
        Figures(
          hosts: receivers, size: size, limit: limit, p50: percentile(0.5), p99: percentile(0.99),
          last: percentile(1), bytesFromMaker: bytesFromMaker, headMessagesPerHost: headMessagesPerHost,
          headBytesPerHost: headBytesPerHost, slowLast: slowCompletions.last, dead: dead, failed: failed))
    }
  }

  package var table: String {
    func time(_ seconds: Double?) -> String {
      guard let seconds else { return "-" }
      return "\(fixed(seconds, digits: 3)) s   \(fixed(seconds / limit, digits: 3)) × limit"
    }
    func bytes(_ position: Double) -> String {
      guard !bytesSent.isEmpty else { return "-" }
      let bytes = bytesSent[min(bytesSent.count - 1, Int(position * Double(bytesSent.count)))]
      return "\(ByteCount(bytes))   \(fixed(Double(bytes) / Double(size), digits: 3)) × size"
    }
    var rows = [
      ("hosts", "\(receivers)\(dead > 0 ? ", \(dead) of them died" : "")"),
      ("size", "\(ByteCount(size)) in chunks of \(chunkSize) bytes"),
      ("limit", "\(fixed(limit, digits: 3)) s"),
      ("first complete", time(completions.first)),
      ("p50", time(percentile(0.5))),
      ("p99", time(percentile(0.99))),
      ("last", time(percentile(1))),
    ]
    if let last = slowCompletions.last {
      rows.append(("last of \(slowCompletions.count) slow hosts", time(last)))
    }
    if failed > 0 { rows.append(("did not get it", "\(failed)")) }
    rows += [
      (
        "the maker sent",
        "\(ByteCount(bytesFromMaker))   \(fixed(Double(bytesFromMaker) / Double(size), digits: 3)) × size"
      ),
      ("a host sent, median", bytes(0.5)),
      ("a host sent, p99", bytes(0.99)),
      ("a host sent, most", bytes(1)),
      ("head, messages per host", fixed(headMessagesPerHost, digits: 2)),
      ("head, bytes per host", fixed(headBytesPerHost, digits: 0)),
    ]
    let width = rows.map(\.0.count).max()! + 2
    return rows.map { $0.0 + String(repeating: " ", count: width - $0.0.count) + $0.1 }.joined(separator: "\n")
  }

  // MARK: The plot

  /// The share of hosts that are complete over time, as an SVG image.
  package var plot: String {
    let (left, top, width, height) = (60.0, 40.0, 640.0, 320.0)
    let end = max(completions.last ?? 0, limit) * 1.05
    let count = Double(max(1, completions.count))
    func x(_ seconds: Double) -> String { fixed(left + seconds / end * width, digits: 1) }
    func y(_ share: Double) -> String { fixed(top + (1 - share) * height, digits: 1) }
    var points = ["\(x(0)),\(y(0))"]
    // No more points than can be told apart.
    let step = max(1, completions.count / 1000)
    for index in stride(from: 0, to: completions.count, by: step) {
      points.append("\(x(completions[index])),\(y(Double(index + 1) / count))")
    }
    if let last = completions.last { points.append("\(x(last)),\(y(1))") }
    var lines = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 420\" font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"740\" height=\"420\" fill=\"white\"/>",
      "<text x=\"60\" y=\"24\" font-size=\"14\">\(ByteCount(size)) to \(receivers) hosts: complete hosts over time</text>",
    ]
    for share in [0.0, 0.25, 0.5, 0.75, 1] {
      lines.append(
        "<line x1=\"60\" x2=\"700\" y1=\"\(y(share))\" y2=\"\(y(share))\" stroke=\"#ddd\"/><text x=\"52\" y=\"\(y(share))\" text-anchor=\"end\">\(Int(share * 100))%</text>"
      )
    }
    for tick in 0...8 {
      let seconds = end * Double(tick) / 8
      lines.append(
        "<text x=\"\(x(seconds))\" y=\"380\" text-anchor=\"middle\">\(fixed(seconds, digits: 2))</text>")
    }
    lines += [
      "<text x=\"380\" y=\"404\" text-anchor=\"middle\">seconds</text>",
      "<line x1=\"\(x(limit))\" x2=\"\(x(limit))\" y1=\"40\" y2=\"360\" stroke=\"#c33\" stroke-dasharray=\"4 3\"/>",
      "<text x=\"\(x(limit))\" y=\"36\" text-anchor=\"middle\" fill=\"#c33\">size / rate</text>",
      "<polyline points=\"\(points.joined(separator: " "))\" fill=\"none\" stroke=\"#236\" stroke-width=\"2\"/>",
      "</svg>",
    ]
    return lines.joined(separator: "\n") + "\n"
  }
}
