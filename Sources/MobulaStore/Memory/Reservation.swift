internal import MobulaCore

/// Reserves the pages of a region from its start to its end, ahead of those who fill it.
///
/// A receiver that first reserved everything would begin to receive a tenth of a second a
/// hundred megabytes later, and in a chain of receivers these times would add up.
final class Reservation: Sendable {
  /// Bytes that are reserved at a time.
  static let step = 8 << 20

  private struct State: Sendable {
    /// Up to where, from the region's start.
    var reserved: Int
    var failure: MobulaError?
  }

  private let state: Monitor<State>

  init(reserved: Int) { state = Monitor(State(reserved: reserved)) }

  /// Begins, on a thread of its own.
  ///
  /// - Parameters:
  ///   - region: where the object lies.
  ///   - ranges: what of it has no memory yet, in order.
  ///   - failed: told which parts were reserved before the system had no more.
  func start(
    _ region: Range<Int>, _ ranges: [Range<Int>], in memory: SegmentMemory,
    failed: @escaping @Sendable ([Range<Int>]) -> Void
  ) {
    detachThread(named: "reserve") { [weak self] in
      var done: [Range<Int>] = []
      for range in ranges {
        self?.advance(to: range.lowerBound - region.lowerBound)
        var start = range.lowerBound
        while start < range.upperBound {
          let end = min(range.upperBound, start + Self.step)
          do throws(MobulaError) {
            try memory.reserve(start..<end)
          } catch {
            failed(done)
            self?.state.update { $0.failure = error }
            return
          }
          done.append(start..<end)
          start = end
          self?.advance(to: end - region.lowerBound)
        }
      }
      self?.advance(to: region.count)
    }
  }

  private func advance(to end: Int) { state.update { $0.reserved = end } }

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
