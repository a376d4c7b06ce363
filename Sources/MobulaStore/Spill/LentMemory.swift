internal import MobulaCore
internal import Synchronization

/// Memory that tasks may use until it is taken back: they may end later than who lent it can wait.
final class LentMemory: Sendable {
  /// `@unchecked Sendable`: the pointer is used under the lock alone, and is gone once `takeBack` has returned.
  private struct Place: @unchecked Sendable {
    let memory: UnsafeMutableRawBufferPointer
  }

  private let state: Mutex<Place?>

  init(_ memory: UnsafeMutableRawBufferPointer) {
    let place = Place(memory: memory)
    state = Mutex(place)
  }

  /// For reading alone.
  convenience init(_ memory: UnsafeRawBufferPointer) { self.init(UnsafeMutableRawBufferPointer(mutating: memory)) }

  private static let isOver = MobulaError(.cancelled, "Nobody waits for this any more.")

  /// The bytes of a range.
  ///
  /// - Throws: `MobulaError` (`cancelled`) when it was taken back.
  func bytes(_ range: Range<Int>) throws(MobulaError) -> [UInt8] {
    try state.withLock { place throws(MobulaError) -> [UInt8] in
      guard let memory = place?.memory else { throw Self.isOver }
      return Array(UnsafeRawBufferPointer(rebasing: memory[range]))
    }
  }

  /// Fills the bytes from `offset` on.
  ///
  /// - Throws: `MobulaError`: `cancelled` when it was taken back, `protocolViolation` for bytes beyond its end.
  func fill(from offset: Int, with bytes: UnsafeRawBufferPointer) throws(MobulaError) {
    try state.withLock { place throws(MobulaError) in
      guard let memory = place?.memory else { throw Self.isOver }
      guard offset >= 0, offset <= memory.count, bytes.count <= memory.count - offset else {
        throw MobulaError(.protocolViolation, "More bytes came from a spill place than were asked for.")
      }
      UnsafeMutableRawBufferPointer(rebasing: memory[offset..<offset + bytes.count]).copyMemory(from: bytes)
    }
  }

  func takeBack() { state.withLock { $0 = nil } }
}
