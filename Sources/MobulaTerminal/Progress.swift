internal import Glibc
import MobulaCore
internal import Synchronization

/// Shows on standard error how far long work has come: one line redrawn on
/// a terminal, plain lines at most every five seconds elsewhere.
public final class Progress: Sendable {
  private struct State {
    var progress: ProgressState
    var drawn: ContinuousClock.Instant
    var isFinished = false
  }

  private let state: Mutex<State>
  private let descriptor: CInt
  private let isTerminal: Bool

  /// - Parameters:
  ///   - title: what is being done.
  ///   - total: bytes in all; `nil` while nobody knows.
  public convenience init(_ title: String, total: Int?) { self.init(title, total: total, descriptor: STDERR_FILENO) }

  init(_ title: String, total: Int?, descriptor: CInt) {
    let now = ContinuousClock.now
    state = Mutex(State(progress: ProgressState(title.printable, total: total, at: now), drawn: now))
    self.descriptor = descriptor
    isTerminal = isatty(descriptor) == 1
  }

  /// `done` bytes in all are done; `total`, if given, is known by now.
  public func update(_ done: Int, of total: Int? = nil) {
    let now = ContinuousClock.now
    let interval: Duration = isTerminal ? .milliseconds(100) : .seconds(5)
    state.withLock { state in
      guard !state.isFinished else { return }
      if let total { state.progress.total = total }
      state.progress.advance(to: done, at: now)
      guard now - state.drawn >= interval else { return }
      state.drawn = now
      // Carriage return, the line, and whatever an older, longer line left behind it erased.
      put(isTerminal ? "\r\(state.progress.line(width: columns() - 1))\u{1B}[K" : state.progress.plainLine() + "\n")
    }
  }

  /// Says something meanwhile, on a line of its own.
  public func note(_ words: String) {
    state.withLock { state in
      guard !state.isFinished else { return }
      put((isTerminal ? "\r\u{1B}[K" : "") + words.printable + "\n")
    }
  }

  /// The work is done, or given up: the line goes and, when it was done, a closing one is printed.
  ///
  /// - Parameter words: the closing line, where bytes and their rate say nothing true.
  public func finish(succeeded: Bool = true, saying words: String? = nil) {
    let now = ContinuousClock.now
    state.withLock { state in
      guard !state.isFinished else { return }
      state.isFinished = true
      let erase = isTerminal ? "\r\u{1B}[K" : ""
      put(succeeded ? "\(erase)\(words ?? state.progress.closingLine(at: now))\n" : erase)
    }
  }

  private func columns() -> Int {
    var size = winsize()
    return ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
  }

  private func put(_ text: String) {
    // A terminal that is gone is no reason to stop the work.
    _ = text.utf8.withContiguousStorageIfAvailable { write(descriptor, $0.baseAddress, $0.count) }
  }
}
