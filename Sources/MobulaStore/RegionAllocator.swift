/// Gives out pieces of one arena: first fit, aligned to 64 bytes, neighbours joined when they come back.
///
/// First fit keeps the front of the arena busy, whose pages have been touched and are warm.
struct RegionAllocator: Sendable, Hashable {
  /// Every region begins at a multiple of this many bytes, as a value's buffers must.
  static let alignment = 64

  /// Bytes of the arena.
  let size: Int
  /// Bytes that can still be given out, perhaps not in one piece.
  private(set) var freeBytes: Int
  /// What is free: in order, never empty, never touching each other.
  private var free: [Range<Int>]

  /// A free arena of `size` bytes, a multiple of 64.
  init(size: Int) {
    precondition(size > 0 && size.isMultiple(of: Self.alignment), "an arena of \(size) bytes")
    self.size = size
    freeBytes = size
    free = [0..<size]
  }

  var isEmpty: Bool { freeBytes == size }

  /// The bytes that a region of `size` takes.
  static func footprint(_ size: Int) -> Int { (size + alignment - 1) & ~(alignment - 1) }

  /// Takes `count` bytes (at least one); `nil` when no free piece is that big.
  mutating func allocate(_ count: Int) -> Int? {
    precondition(count > 0, "a region has at least one byte")
    guard count <= freeBytes else { return nil }
    let footprint = Self.footprint(count)
    guard let index = free.firstIndex(where: { $0.count >= footprint }) else { return nil }
    let offset = free[index].lowerBound
    if free[index].count == footprint {
      free.remove(at: index)
    } else {
      free[index] = offset + footprint..<free[index].upperBound
    }
    freeBytes -= footprint
    return offset
  }

  /// Takes back the region of `count` bytes that was given out at `offset`.
  mutating func deallocate(_ offset: Int, count: Int) {
    var region = offset..<offset + Self.footprint(count)
    precondition(offset >= 0 && region.upperBound <= size, "region \(region) is outside of the arena")
    freeBytes += region.count
    let next = firstFree(after: offset)
    var replaced = next..<next
    if next < free.count {
      precondition(free[next].lowerBound >= region.upperBound, "region \(region) was free already")
      if free[next].lowerBound == region.upperBound {
        region = region.lowerBound..<free[next].upperBound
        replaced = replaced.lowerBound..<next + 1
      }
    }
    if next > 0 {
      precondition(free[next - 1].upperBound <= offset, "region \(region) was free already")
      if free[next - 1].upperBound == offset {
        region = free[next - 1].lowerBound..<region.upperBound
        replaced = next - 1..<replaced.upperBound
      }
    }
    free.replaceSubrange(replaced, with: CollectionOfOne(region))
  }

  /// The index of the first free piece that begins after `offset`, by bisection.
  private func firstFree(after offset: Int) -> Int {
    var low = 0
    var high = free.count
    while low < high {
      let middle = (low + high) / 2
      if free[middle].lowerBound > offset { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
