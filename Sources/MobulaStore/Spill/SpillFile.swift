internal import Glibc
internal import MobulaCore

/// A spill file that is open for reading.
struct SpillFile {
  /// For messages.
  let path: String
  /// Bytes of the file.
  let size: Int
  let descriptor: SharedDescriptor

  /// - Throws: `MobulaError`: `notFound` when there is no such file, else `inputOutput`.
  init(_ object: ObjectID, in folder: SpillFolder) throws(MobulaError) {
    let name = SpillFileName.object(object, folder.instance)
    let path = folder.path(of: name)
    var raw = folder.open(name)
    while raw < 0, currentErrno() == EINTR { raw = folder.open(name) }
    guard raw >= 0 else {
      let number = currentErrno()
      if number == ENOENT {
        throw MobulaError(
          .notFound, "The spill file \(path) is gone: fetch its object again, or make it again.")
      }
      throw MobulaError.system("The spill file \(path) can't be opened", number: number)
    }
    try self.init(SharedDescriptor(OwnedDescriptor(owning: raw)), path: path)
  }

  /// A file that somebody else opened.
  ///
  /// - Throws: `MobulaError` (`inputOutput`).
  init(_ descriptor: SharedDescriptor, path: String) throws(MobulaError) {
    var status = stat()
    try systemCall("The spill file \(path) can't be looked at") { fstat(descriptor.rawValue, &status) }
    self.path = path
    size = Int(status.st_size)
    self.descriptor = descriptor
  }

  /// - Throws: `MobulaError`: `corrupted`, or `inputOutput`.
  func header() throws(MobulaError) -> SpillHeader {
    guard size >= SpillHeader.alignment else { throw SpillHeader.damaged(path, "it has \(size) bytes only") }
    // Enough for most objects; of the others, the prefix tells how much is to come.
    var bytes = try read(0..<SpillHeader.alignment)
    let length = try SpillHeader.length(ofPrefix: bytes, fileSize: size, file: path)
    if length > bytes.count { bytes += try read(bytes.count..<length) }
    return try SpillHeader(decoding: bytes, fileSize: size, file: path)
  }

  private func read(_ range: Range<Int>) throws(MobulaError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: range.count)
    try check(bytes.withUnsafeMutableBytes { fill($0, from: range.lowerBound) })
    return bytes
  }

  /// Reads the object's bytes and verifies every chunk.
  ///
  /// - Throws: `MobulaError`: `corrupted` that names the chunk, or `inputOutput`; `memory` holds rubbish then.
  func read(into memory: UnsafeMutableRawBufferPointer, header: SpillHeader) throws(MobulaError) {
    posix_fadvise(descriptor.rawValue, 0, 0, POSIX_FADV_SEQUENTIAL)
    // Chunk by chunk, so that a chunk's bytes are in the cache when they are summed.
    for index in 0..<header.geometry.count {
      let range = header.geometry.range(of: index)
      let chunk = UnsafeMutableRawBufferPointer(rebasing: memory[range])
      try check(fill(chunk, from: header.length + range.lowerBound))
      guard crc32c(UnsafeRawBufferPointer(chunk)) == header.checksums[index] else {
        throw SpillHeader.damaged(path, "chunk \(index) of \(header.geometry.count) has a wrong checksum")
      }
    }
  }

  /// Fills `memory` from the file: 0, an errno value, or -1 when the file ends before.
  private func fill(_ memory: UnsafeMutableRawBufferPointer, from start: Int) -> CInt {
    var done = 0
    while done < memory.count {
      let count = pread(descriptor.rawValue, memory.baseAddress! + done, memory.count - done, off_t(start + done))
      if count > 0 {
        done += count
      } else if count == 0 {
        return -1
      } else if currentErrno() != EINTR {
        return currentErrno()
      }
    }
    return 0
  }

  private func check(_ number: CInt) throws(MobulaError) {
    if number == -1 { throw SpillHeader.damaged(path, "it became shorter while it was read") }
    if number != 0 { throw MobulaError.system("The spill file \(path) can't be read", number: number) }
  }
}
