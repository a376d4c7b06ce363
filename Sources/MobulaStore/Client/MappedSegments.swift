internal import MobulaCore
internal import Synchronization

/// The segments that a client has mapped, to be found without a lock.
///
/// A segment is mapped as a whole, once, and stays mapped: one that is gone has no memory any more, only
/// addresses. What is found here is only used under a pin.
///
/// `@unchecked Sendable`: `cache` is atomic words that point to `Mapped`s, all of which `mapped` keeps alive
/// until the end.
final class MappedSegments: @unchecked Sendable {
  final class Mapped: Sendable {
    let number: UInt64
    let mapping: MemoryMapping
    let base: UInt
    let count: Int

    init(number: UInt64, mapping: MemoryMapping) {
      self.number = number
      self.mapping = mapping
      base = UInt(bitPattern: mapping.bytes.baseAddress!)
      count = mapping.bytes.count
    }
  }

  private static let cacheSize = 64
  private let cache: UnsafeMutablePointer<SharedWord>
  private let mapped = Mutex<[UInt64: Mapped]>([:])

  init() {
    cache = .allocate(capacity: Self.cacheSize)
    for index in 0..<Self.cacheSize { (cache + index).initialize(to: SharedWord(0)) }
  }

  deinit { cache.deallocate() }

  /// The address of a mapped segment and its bytes; `nil` when it isn't mapped.
  @inline(__always)
  func find(_ number: UInt64) -> (base: UInt, count: Int)? {
    let word = cache[Int(truncatingIfNeeded: number) & (Self.cacheSize - 1)].load(ordering: .acquiring)
    if word != 0 {
      let mapped = Unmanaged<Mapped>.fromOpaque(UnsafeRawPointer(bitPattern: UInt(word))!)
      let found = mapped._withUnsafeGuaranteedRef { $0.number == number ? ($0.base, $0.count) : nil }
      if let found { return found }
    }
    return findSlowly(number)
  }

  private func findSlowly(_ number: UInt64) -> (base: UInt, count: Int)? {
    mapped.withLock { all in
      guard let mapped = all[number] else { return nil }
      remember(mapped)
      return (mapped.base, mapped.count)
    }
  }

  private func remember(_ mapped: Mapped) {
    cache[Int(truncatingIfNeeded: mapped.number) & (Self.cacheSize - 1)].store(
      UInt64(UInt(bitPattern: Unmanaged.passUnretained(mapped).toOpaque())), ordering: .releasing)
  }

  /// Maps a segment unless another thread was faster.
  ///
  /// - Parameter make: maps it.
  func add(_ number: UInt64, _ make: () throws(MobulaError) -> MemoryMapping) throws(MobulaError) {
    if mapped.withLock({ $0[number] != nil }) { return }
    let new = Mapped(number: number, mapping: try make())
    mapped.withLock { all in
      if all[number] == nil {
        all[number] = new
        remember(new)
      }
    }
  }
}
