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
    /// Looks now and then, in case that nobody has anything to say.
    var watcher: Task<Void, Never>?
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
    let watcher = Task { [weak self] in
      while !Task.isCancelled {
        try? await Task.sleep(for: .seconds(1))
        self?.look()
      }
    }
    state.withLock { $0.watcher = watcher }
  }

  deinit { state.withLock { $0.watcher?.cancel() } }

  /// Says that nothing comes, where it is so.
  private func look() {
    let now = ContinuousClock.now
    let interval: Duration = isTerminal ? .milliseconds(900) : .seconds(10)
    state.withLock { state in
      guard !state.isFinished, now - state.drawn >= interval else { return }
      state.progress.advance(to: state.progress.done, at: now)
      if state.progress.standstill != nil { draw(&state, at: now) }
    }
  }

  private func draw(_ state: inout State, at now: ContinuousClock.Instant) {
    state.drawn = now
    // Carriage return, the line, and whatever an older, longer line left behind it erased.
    put(isTerminal ? "\r\(state.progress.line(width: columns() - 1))\u{1B}[K" : state.progress.plainLine() + "\n")
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
      draw(&state, at: now)
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
  /// - Parameters:
  ///   - words: the closing line, where bytes and their rate say nothing true.
  ///   - came: how many of the bytes were not there before; all by default.
  public func finish(succeeded: Bool = true, saying words: String? = nil, came: Int? = nil) {
    let now = ContinuousClock.now
    state.withLock { state in
      guard !state.isFinished else { return }
      state.isFinished = true
      state.watcher?.cancel()
      let erase = isTerminal ? "\r\u{1B}[K" : ""
      put(succeeded ? "\(erase)\(words ?? state.progress.closingLine(at: now, came: came))\n" : erase)
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
