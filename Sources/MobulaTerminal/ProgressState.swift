import MobulaCore

/// How far long work has come, and the words for it. Time is given to it, never asked for.
public struct ProgressState: Sendable {
  /// What is being done, as in "fetching model.bin".
  public let title: String
  /// Bytes in all; `nil` while nobody knows.
  public var total: Int?
  public private(set) var done = 0
  /// How long nothing has come, once that is longer than a moment.
  public private(set) var standstill: Duration?
  /// Bytes per second of late; `nil` until there is something to tell it from.
  public private(set) var rate: Double?
  private let begin: ContinuousClock.Instant
  /// When `done` last grew.
  private var news: ContinuousClock.Instant
  private var measured: (time: ContinuousClock.Instant, done: Int)

  /// From then on there is no rate, and no time that is left.
  private static let patience = Duration.seconds(3)
  /// A rate is told from at least this much time.
  private static let window = Duration.milliseconds(250)

  public init(_ title: String, total: Int?, at now: ContinuousClock.Instant) {
    self.title = title
    self.total = total
    begin = now
    news = now
    measured = (now, 0)
  }

  /// `done` bytes in all are done. Less than before means that work was lost, and the rate starts anew.
  public mutating func advance(to done: Int, at now: ContinuousClock.Instant) {
    if done > self.done { news = now }
    self.done = done
    standstill = now - news >= Self.patience ? now - news : nil
    if standstill != nil {
      // What came before says nothing of what comes after.
      measured = (now, done)
      rate = nil
      return
    }
    if done < measured.done {
      measured = (now, done)
      rate = nil
    }
    if done == 0 {
      // Waiting for the first bytes tells nothing of how fast they will come.
      measured = (now, 0)
      return
    }
    let elapsed = now - measured.time
    guard elapsed >= Self.window else { return }
    let latest = Double(done - measured.done) / seconds(elapsed)
    // Half of what it was a second ago: steady enough to read, quick enough to see a stall.
    let weight = max(0.2, 1 - 1 / (1 + seconds(elapsed)))
    rate = rate.map { $0 + weight * (latest - $0) } ?? latest
    measured = (now, done)
  }

  /// Time that is left at the current rate.
  public var remaining: Duration? {
    guard let total, let rate, rate >= 1, done < total else { return nil }
    return .seconds(Double(total - done) / rate)
  }

  /// One line of at most `width` columns: bar, percent, bytes of total, rate, time left; the bar gives way first.
  public func line(width: Int) -> String {
    let text = facts()
    let free = width - title.count - text.count - 5
    guard let total, total > 0, free >= 8 else { return String("\(title)  \(text)".prefix(max(0, width))) }
    let cells = min(30, free)
    let full = min(cells, Int(Double(cells) * share(of: total)))
    let bar = String(repeating: "#", count: full) + String(repeating: "-", count: cells - full)
    return "\(title) [\(bar)]  \(text)"
  }

  /// One line without a bar, for a log.
  public func plainLine() -> String { "\(title): \(facts())" }

  /// What is said at the end.
  ///
  /// - Parameter came: how many of the bytes were not there before; all by default.
  public func closingLine(at now: ContinuousClock.Instant, came: Int? = nil) -> String {
    let elapsed = seconds(now - begin)
    // Of a moment, and of few bytes, it says nothing.
    let came = min(came ?? done, done)
    let rate = elapsed >= 0.01 && came >= 100_000 ? ", \(ByteCount(Int(Double(came) / elapsed)))/s" : ""
    let whole = came < done ? "\(ByteCount(done)), of which \(ByteCount(came)) came" : "\(ByteCount(done))"
    return "\(title): \(whole) in \(fixed(elapsed, digits: 1)) s\(rate)"
  }

  private func facts() -> String {
    var parts: [String] = []
    let pause = standstill.map { Self.text(of: .seconds(seconds($0).rounded(.down))) }
    if total == nil, done == 0, let pause { return "nothing for \(pause)" }
    if let total {
      parts = ["\(Int(100 * share(of: total)))%", "\(ByteCount(done)) of \(ByteCount(total))"]
    } else {
      parts = ["\(ByteCount(done))"]
    }
    if let rate { parts.append("\(ByteCount(Int(rate)))/s") }
    // All is there, or sent: it is what comes after that is waited for.
    if let pause { parts.append(done < total ?? .max ? "nothing for \(pause)" : "waiting for \(pause)") }
    if let remaining { parts.append("\(Self.text(of: remaining)) left") }
    return parts.joined(separator: "  ")
  }

  private func share(of total: Int) -> Double { total > 0 ? min(1, Double(done) / Double(total)) : 1 }

  /// `12 s`, `3:05`, `1:02:03`; rounded up, since nothing is left only at the end.
  static func text(of duration: Duration) -> String {
    let all = Int(seconds(duration).rounded(.up))
    let (hours, minutes, rest) = (all / 3600, all / 60 % 60, all % 60)
    func padded(_ n: Int) -> String { n < 10 ? "0\(n)" : "\(n)" }
    if hours > 0 { return "\(hours):\(padded(minutes)):\(padded(rest))" }
    return minutes > 0 ? "\(minutes):\(padded(rest))" : "\(rest) s"
  }
}

/// A duration as a number of seconds.
func seconds(_ duration: Duration) -> Double { duration / .seconds(1) }
