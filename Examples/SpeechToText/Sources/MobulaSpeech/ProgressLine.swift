import Foundation
import Synchronization

/// A line on standard error that says how far the transcription is, where that is a terminal.
final class ProgressLine: Sendable {
  private struct State {
    var files: [Int: (seconds: Double, done: Double)] = [:]
    var hasEnded = false
  }

  private let count: Int
  private let isShown: Bool
  private let state = Mutex(State())

  init(files count: Int) {
    self.count = count
    isShown = isatty(STDERR_FILENO) == 1
  }

  func begins(_ index: Int, seconds: Double) {
    state.withLock { state in
      state.files[index] = (seconds, 0)
      show(state)
    }
  }

  /// - Parameter done: seconds of that file's audio.
  func update(_ index: Int, done: Double) {
    state.withLock { state in
      guard let file = state.files[index] else { return }
      state.files[index]!.done = min(file.seconds, max(file.done, done))
      show(state)
    }
  }

  /// Wipes the line; nothing is drawn after it.
  func end() {
    state.withLock { state in
      if isShown, !state.hasEnded { write("\r\u{1b}[K") }
      state.hasEnded = true
    }
  }

  /// Within the lock, so that the line is never older than what was said before.
  private func show(_ state: State) {
    guard isShown, !state.hasEnded else { return }
    let files = state.files.values
    let done = files.reduce(0) { $0 + $1.done }
    let all = files.reduce(0) { $0 + $1.seconds }
    let finished = files.count { $0.done >= $0.seconds }
    let width = 24
    let filled = all > 0 ? Int(done / all * Double(width)) : 0
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
    write("\r\u{1b}[K\(bar) \(finished) of \(count) files, \(Int(done)) s of \(Int(all)) s of audio")
  }

  private func write(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}
