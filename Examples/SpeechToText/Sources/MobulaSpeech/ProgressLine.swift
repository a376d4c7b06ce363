import Foundation
import Synchronization

/// A line on standard error that says how far the transcription is, where that is a terminal.
final class ProgressLine: Sendable {
  private struct State {
    var files: [Int: (seconds: Double, done: Double)] = [:]
  }

  private let count: Int
  private let isShown: Bool
  private let state = Mutex(State())

  init(files count: Int) {
    self.count = count
    isShown = isatty(STDERR_FILENO) == 1
  }

  func begins(_ index: Int, seconds: Double) {
    state.withLock { $0.files[index] = (seconds, 0) }
    show()
  }

  /// - Parameter done: seconds of that file's audio.
  func update(_ index: Int, done: Double) {
    state.withLock { state in
      guard let file = state.files[index] else { return }
      state.files[index]!.done = min(file.seconds, max(file.done, done))
    }
    show()
  }

  func end() { if isShown { write("\r\u{1b}[K") } }

  private func show() {
    guard isShown else { return }
    let (done, all, finished) = state.withLock { state in
      let files = state.files.values
      return (
        files.reduce(0) { $0 + $1.done }, files.reduce(0) { $0 + $1.seconds },
        files.count { $0.done >= $0.seconds }
      )
    }
    let width = 24
    let filled = all > 0 ? Int(done / all * Double(width)) : 0
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
    write("\r\u{1b}[K\(bar) \(finished) of \(count) files, \(Int(done)) s of \(Int(all)) s of audio")
  }

  private func write(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}
