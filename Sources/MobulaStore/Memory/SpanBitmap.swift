/// Which of an extent's spans, 256 at most, are free.
struct SpanBitmap: Sendable {
  /// A one is a free span. Spans that the extent has not are never free.
  private var words = InlineArray<4, UInt64>(repeating: 0)

  /// `count` free spans.
  init(count: Int) { set(0..<count, free: true) }

  mutating func set(_ places: Range<Int>, free: Bool) {
    var place = places.lowerBound
    while place < places.upperBound {
      let end = min(places.upperBound, (place / 64 + 1) * 64)
      let mask = (UInt64.max >> UInt64(64 - (end - place))) << UInt64(place % 64)
      if free { words[place / 64] |= mask } else { words[place / 64] &= ~mask }
      place = end
    }
  }

  /// The first place from which `count` spans in a row are free.
  func firstRun(_ count: Int) -> Int? {
    var from = 0
    while let begin = first(free: true, from: from) {
      let end = first(free: false, from: begin) ?? 256
      if end - begin >= count { return begin }
      from = end
    }
    return nil
  }

  private func first(free: Bool, from: Int) -> Int? {
    var mask = UInt64.max << UInt64(from % 64)
    for word in from / 64..<4 {
      let bits = (free ? words[word] : ~words[word]) & mask
      if bits != 0 { return word * 64 + bits.trailingZeroBitCount }
      mask = .max
    }
    return nil
  }
}
