/// Scratch memory for one kind of intermediate result: it grows to the largest that was asked for, and is reused.
///
/// Not for two threads at once. Memory is requested in `reserve` alone, so that a step that reserved before allocates
/// nothing.
final class FloatBuffer {
  private var storage: UnsafeMutableRawPointer
  private(set) var capacity = 0

  init() {
    storage = .allocate(byteCount: 64, alignment: 64)
  }

  deinit { storage.deallocate() }

  /// Room for `count` numbers, valid until more are reserved. If it has to grow, what was in it is lost.
  /// Pages that nobody writes to take no memory.
  func reserve(_ count: Int) -> UnsafeMutablePointer<Float> {
    if count > capacity {
      storage.deallocate()
      // The numbers of a workspace come from checked configurations and windows of bounded length: no overflow.
      storage = .allocate(byteCount: count * MemoryLayout<Float>.stride, alignment: 64)
      capacity = count
    }
    // Everything is written before it is read, and as nothing but floats.
    return storage.bindMemory(to: Float.self, capacity: capacity)
  }
}
