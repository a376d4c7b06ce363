/// The directory of a ZIP archive whose entries are stored, not compressed, so that they can be used in place.
///
/// Format: PKWARE's APPNOTE 6.3, with its 64-bit extension; one volume, no encryption. The entries' checksums are
/// not compared.
struct ZipArchive {
  /// Each entry's bytes by its name.
  let entries: [String: UnsafeRawBufferPointer]

  private struct Entry {
    let name: String
    let headerOffset: Int
    let size: Int
  }

  /// - Throws: `badModel`, for what isn't such an archive, or contradicts itself; `unsupported`, for compressed entries.
  init(_ bytes: UnsafeRawBufferPointer, name: String) throws(SpeechError) {
    func fail(_ what: String) -> SpeechError {
      SpeechError(.badModel, "\(name) is a damaged ZIP archive: \(what); fetch it again.")
    }
    let directory = try Self.directory(bytes, name)
    var reader = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[..<directory.range.upperBound]), name: name)
    try reader.seek(directory.range.lowerBound)
    var found: [(range: Range<Int>, name: String)] = []
    var entries: [String: UnsafeRawBufferPointer] = [:]
    for _ in 0..<directory.count {
      let entry = try Self.entry(&reader)
      // The local header repeats the name, and says how much follows before the data.
      var local = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[..<directory.range.lowerBound]), name: name)
      try local.seek(entry.headerOffset)
      guard try local.integer(UInt32.self) == 0x0403_4B50 else { throw fail("\(entry.name) is not where it should be") }
      try local.skip(22)
      let skipped = Int(try local.integer(UInt16.self)) + Int(try local.integer(UInt16.self))
      try local.skip(skipped)
      let data = try local.take(entry.size)
      guard entries.updateValue(data, forKey: entry.name) == nil else { throw fail("\(entry.name) is there twice") }
      found.append((entry.headerOffset..<local.offset, entry.name))
    }
    guard reader.remaining == 0 else { throw fail("its directory is longer than its entries") }
    found.sort { $0.range.lowerBound < $1.range.lowerBound }
    for (first, second) in zip(found, found.dropFirst()) where second.range.lowerBound < first.range.upperBound {
      throw fail("\(first.name) and \(second.name) overlap")
    }
    self.entries = entries
  }

  /// Where the central directory lies, from the record at the archive's end.
  private static func directory(
    _ bytes: UnsafeRawBufferPointer, _ name: String
  ) throws(SpeechError) -> (range: Range<Int>, count: Int) {
    let notZip = SpeechError(.badModel, "\(name) has no ZIP directory at its end, so it was cut off: fetch it again.")
    let recordSize = 22
    guard bytes.count >= recordSize else { throw notZip }
    var position = bytes.count - recordSize
    let lowest = max(0, position - Int(UInt16.max))
    // The record's last field is the length of the comment that follows it, up to the end.
    while bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self).littleEndian != 0x0605_4B50
      || Int(UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: position + 20, as: UInt16.self)))
        != bytes.count - position - recordSize
    {
      position -= 1
      guard position >= lowest else { throw notZip }
    }
    var reader = ByteReader(bytes, name: name)
    try reader.seek(position + 4)
    let volumes = try reader.integer(UInt32.self)
    let (onVolume, total) = (try reader.integer(UInt16.self), try reader.integer(UInt16.self))
    var (size, offset) = (UInt64(try reader.integer(UInt32.self)), UInt64(try reader.integer(UInt32.self)))
    var count = UInt64(total)
    guard volumes == 0 || volumes == .max, onVolume == total else {
      throw SpeechError(.unsupported, "\(name) is a ZIP archive in several volumes: join them.")
    }
    let locatorSize = 20
    if position >= locatorSize {
      try reader.seek(position - locatorSize)
      if try reader.integer(UInt32.self) == 0x0706_4B50 {
        try reader.skip(4)
        try reader.seek(Int(clamping: try reader.integer(UInt64.self)))
        guard try reader.integer(UInt32.self) == 0x0606_4B50 else { throw notZip }
        try reader.skip(28)
        count = try reader.integer(UInt64.self)
        size = try reader.integer(UInt64.self)
        offset = try reader.integer(UInt64.self)
      }
    }
    let (end, overflow) = offset.addingReportingOverflow(size)
    // An entry takes 46 bytes at least.
    guard !overflow, end <= UInt64(position), count <= size / 46 else {
      throw SpeechError(.badModel, "\(name) has a ZIP directory that lies past its end: fetch it again.")
    }
    return (Int(offset)..<Int(end), Int(count))
  }

  private static func entry(_ reader: inout ByteReader) throws(SpeechError) -> Entry {
    let name = reader.name
    guard try reader.integer(UInt32.self) == 0x0201_4B50 else {
      throw SpeechError(.badModel, "\(name) has a damaged ZIP directory at byte \(reader.offset): fetch it again.")
    }
    try reader.skip(4)
    let flags = try reader.integer(UInt16.self)
    let method = try reader.integer(UInt16.self)
    try reader.skip(8)
    var packed = UInt64(try reader.integer(UInt32.self))
    var size = UInt64(try reader.integer(UInt32.self))
    let nameLength = Int(try reader.integer(UInt16.self))
    let extraLength = Int(try reader.integer(UInt16.self))
    let commentLength = Int(try reader.integer(UInt16.self))
    try reader.skip(8)
    var headerOffset = UInt64(try reader.integer(UInt32.self))
    guard let entry = text(try reader.take(nameLength)) else {
      throw SpeechError(.badModel, "\(name) has a ZIP entry whose name isn't UTF-8: fetch it again.")
    }
    var extra = ByteReader(try reader.take(extraLength), name: "An extra field of \(name)")
    try reader.skip(commentLength)
    while extra.remaining >= 4 {
      let identifier = try extra.integer(UInt16.self)
      var field = ByteReader(try extra.take(Int(try extra.integer(UInt16.self))), name: extra.name)
      guard identifier == 1 else { continue }
      // The 64-bit extension has those numbers that are all ones in the entry, in this order.
      if size == UInt32.max { size = try field.integer(UInt64.self) }
      if packed == UInt32.max { packed = try field.integer(UInt64.self) }
      if headerOffset == UInt32.max { headerOffset = try field.integer(UInt64.self) }
    }
    guard flags & 1 == 0, method == 0 else {
      throw SpeechError(
        .unsupported, "\(name) has \(entry) compressed or encrypted, as torch.save doesn't: save it anew with torch.")
    }
    guard packed == size else {
      throw SpeechError(.badModel, "\(name) stores \(entry) with two different lengths: fetch it again.")
    }
    return Entry(name: entry, headerOffset: Int(clamping: headerOffset), size: Int(clamping: size))
  }
}
