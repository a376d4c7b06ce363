/// Where the frames lie in the buffer.
extension CBOREncodingState {
  /// Makes a frame the innermost that reaches to the end of the buffer, and returns
  /// `nil`; or, if it has ended before, where what is to be added to it belongs.
  func reach(_ index: Int) -> Int? {
    if let end = frames[index].end { return end }
    while tip != index {
      frames[tip].end = writer.bytes.count
      tip = frames[tip].parent
    }
    return nil
  }

  /// Moves what was written at the end of the buffer, from `mark` on, to `place`, the end of the frame `index`.
  func move(from mark: Int, to place: Int, growing index: Int) {
    let moved = Array(writer.bytes[mark...])
    writer.bytes.removeLast(moved.count)
    writer.bytes.insert(contentsOf: moved, at: place)
    for other in owned {
      if frames[other].head >= place { frames[other].head += moved.count }
      if let end = frames[other].end, end > place { frames[other].end = end + moved.count }
    }
    // Of the frames that end at this place, it is inside those that are around the one that grows.
    var around = index
    while around >= max(owner, 0), frames[around].end == place {
      frames[around].end = place + moved.count
      around = frames[around].parent
    }
  }

  /// Removes the head of a frame that turned out to be a single value.
  func removeHead(of index: Int) {
    let head = frames[index].head
    writer.bytes.remove(at: head)
    for other in owned {
      if frames[other].head > head { frames[other].head -= 1 }
      if let end = frames[other].end, end > head { frames[other].end = end - 1 }
    }
  }

  /// Sets the heads of the owner's containers to their counts, in one pass
  /// backwards over the buffer however many of them need more than a byte.
  func writeHeads() {
    var longer: [(head: Int, width: Int, frame: Int)] = []
    var growth = 0
    for index in owned where frames[index].kind == .map || frames[index].kind == .array {
      let frame = frames[index]
      if frame.count < 24 {
        writer.bytes[frame.head] |= UInt8(frame.count)
      } else {
        let width = CBORWriter.argumentWidth(UInt64(frame.count))
        longer.append((frame.head, width, index))
        growth += width
      }
    }
    guard growth > 0 else { return }
    longer.sort { $0.head > $1.head }
    var source = writer.bytes.count
    writer.bytes.append(contentsOf: repeatElement(0, count: growth))
    var destination = writer.bytes.count
    writer.bytes.withUnsafeMutableBytes { bytes in
      for (head, width, index) in longer {
        let length = source - (head + 1)
        destination -= length
        let content = UnsafeRawBufferPointer(rebasing: bytes[head + 1..<source])
        UnsafeMutableRawBufferPointer(rebasing: bytes[destination..<destination + length]).copyMemory(from: content)
        let upper = bytes[head]
        for place in 0..<width {
          destination -= 1
          bytes[destination] = UInt8(truncatingIfNeeded: frames[index].count >> (8 * place))
        }
        destination -= 1
        bytes[destination] = upper | UInt8(24 + width.trailingZeroBitCount)
        source = head
      }
    }
  }

  /// Puts the pairs of a dictionary into the order of their encoded keys, so that equal dictionaries have equal bytes.
  ///
  /// Its heads are not written yet, and all that is in it is.
  func sortPairs(of index: Int) {
    guard frames.count == index + 1, frames[index].end == nil else { return }
    let start = frames[index].head + 1
    let pairs = writer.bytes.withUnsafeBytes { bytes -> [(whole: Range<Int>, key: Range<Int>)]? in
      var reader = CBORReader(bytes, at: start)
      return try? (0..<frames[index].count).map { _ in
        let begin = reader.offset
        try reader.skip()
        let middle = reader.offset
        try reader.skip()
        return (begin..<reader.offset, begin..<middle)
      }
    }
    guard let pairs else { return }
    let sorted = pairs.sorted { writer.bytes[$0.key].lexicographicallyPrecedes(writer.bytes[$1.key]) }
    let ordered = sorted.flatMap { writer.bytes[$0.whole] }
    writer.bytes.replaceSubrange(start..., with: ordered)
  }

  private var owned: Range<Int> { max(owner, 0)..<frames.count }

  /// The keys from the outermost value to this frame.
  func codingPath(_ index: Int) -> [any CodingKey] {
    var path: [any CodingKey] = []
    var index = index
    while frames.indices.contains(index) {
      if let key = frames[index].key { path.append(key) }
      index = frames[index].parent
    }
    return path.reversed()
  }

  func error(_ what: String, at index: Int) -> EncodingError {
    EncodingError.invalidValue(
      what, EncodingError.Context(codingPath: codingPath(index), debugDescription: what))
  }

  /// Remembers what went wrong where nothing can be thrown.
  func fail(_ what: String, at index: Int) { fail(error(what, at: index)) }

  func fail(_ error: EncodingError) {
    if failure == nil { failure = error }
  }

  func outOfTurn(_ id: FrameID) -> EncodingError {
    error("Use an encoder or a container only until the encode(to:) that it was made for returns.", at: id.index)
  }
}

extension CBORWriter {
  /// How many bytes a head needs beyond its first.
  static func argumentWidth(_ argument: UInt64) -> Int {
    switch argument {
    case 0..<24: 0
    case ...0xFF: 1
    case ...0xFFFF: 2
    case ...0xFFFF_FFFF: 4
    default: 8
    }
  }
}
