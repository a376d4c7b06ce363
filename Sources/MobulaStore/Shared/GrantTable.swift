internal import MobulaCore
internal import Synchronization

/// What a client was granted, for a store that is started again: in memory of the store's alone, since a client that
/// could write here could claim what others have.
///
/// 2048 times two words: offset and kind, bytes.
///
/// `@unchecked Sendable`: the mapping stays as long as `mapping` does, and all of it is read and written by atomic
/// operations.
struct GrantTable: @unchecked Sendable {
  static let count = 2048
  static let size = count * 16

  /// What a client may write: an extent for small objects, or the region of one big object that is not sealed yet.
  struct Grant: Hashable, Sendable {
    let range: Range<Int>
    let isExtent: Bool
  }

  private let mapping: MemoryMapping
  private let base: UnsafeMutableRawPointer

  /// - Precondition: the mapping has at least `size` bytes.
  init(_ mapping: MemoryMapping) {
    precondition(mapping.bytes.count >= Self.size, "a table of grants of \(mapping.bytes.count) bytes")
    self.mapping = mapping
    base = mapping.bytes.baseAddress!
  }

  private func words(_ index: Int) -> UnsafeMutablePointer<SharedWord> {
    (base + index * 16).assumingMemoryBound(to: SharedWord.self)
  }

  subscript(index: Int) -> Grant? {
    get {
      let words = words(index)
      let value = words[0].load(ordering: .acquiring)
      let count = words[1].load(ordering: .relaxed)
      guard value & 3 == 1 || value & 3 == 2, value < 1 << 56, count > 0, count < 1 << 56 else { return nil }
      let start = Int(value & ~63)
      return Grant(range: start..<start + Int(count), isExtent: value & 3 == 1)
    }
    nonmutating set {
      let words = words(index)
      guard let newValue else { return words[0].store(0, ordering: .releasing) }
      words[1].store(UInt64(newValue.range.count), ordering: .relaxed)
      words[0].store(UInt64(newValue.range.lowerBound) | (newValue.isExtent ? 1 : 2), ordering: .releasing)
    }
  }
}
