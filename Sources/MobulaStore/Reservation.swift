internal import MobulaCore

/// Reserves a segment's pages from its start to its end, ahead of those who fill it.
///
/// A receiver that first reserved everything would begin to receive a tenth of a second a
/// hundred megabytes later, and in a chain of receivers these times would add up.
final class Reservation: Sendable {
  /// Bytes that are reserved at a time.
  static let step = 8 << 20

  private struct State: Sendable {
    var reserved: Int
    var failure: MobulaError?
  }

  private let state: Monitor<State>

  init(reserved: Int) { state = Monitor(State(reserved: reserved)) }

  /// Begins, on a thread that keeps the descriptor open until it is done.
  func start(size: Int, descriptor: SharedDescriptor) {
    detachThread(named: "reserve") { [weak self] in
      var reserved = 0
      while reserved < size {
        let end = min(size, reserved + Self.step)
        do throws(MobulaError) {
          try MemoryFile.reserve(reserved..<end, of: descriptor.rawValue)
        } catch {
          self?.state.update { $0.failure = error }
          return
        }
        reserved = end
        // Without the segment there is nobody left to reserve for.
        guard let self else { return }
        self.state.update { $0.reserved = end }
      }
      withExtendedLifetime(descriptor) {}
    }
  }

  /// Blocks until the first `end` bytes are reserved.
  ///
  /// - Throws: `MobulaError` (`full`).
  func wait(for end: Int) throws(MobulaError) {
    // The system either finds the pages or says that it has none; the deadline is for neither.
    let done = try state.wait(until: .now + .seconds(60)) { state throws(MobulaError) in
      if state.reserved >= end { return true }
      if let failure = state.failure { throw failure }
      return Bool?.none
    }
    guard done != nil else {
      throw MobulaError(.full, "The system did not find memory for the store within a minute: free some.")
    }
  }
}
