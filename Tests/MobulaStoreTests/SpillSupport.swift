import Glibc
import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

/// A folder of its own for `body`, which has to leave neither files in it nor descriptors open.
func withSpillFolder(_ body: (String) async throws -> Void) async throws {
  let folder = try makeTemporaryDirectory("spill", in: "/tmp")
  defer { removeTree(folder) }
  try await body(folder)
  #expect(files(below: folder) == [])
  // A thread that has given its answer lets go of what it used a moment later.
  for _ in 0..<500 where !descriptors(below: folder).isEmpty { try await Task.sleep(for: .milliseconds(10)) }
  #expect(descriptors(below: folder) == [])
}

/// An object to spill, of random bytes.
struct SpillSample {
  let object: ObjectID
  let geometry: ChunkGeometry
  let bytes: [UInt8]
  let checksums: [UInt32]
  let contains: [ObjectID]
  let flags: UInt64

  /// - Parameter chunkSize: the usual one when 0.
  init(_ number: UInt64 = 1, size: Int, chunkSize: Int = 0, contains: Int = 0, flags: UInt64 = 0) throws {
    object = ObjectID(high: 7, low: number)
    let geometry =
      try chunkSize == 0
      ? ChunkGeometry(objectSize: size) : ChunkGeometry(objectSize: size, chunkSize: chunkSize)
    let bytes = randomBytes(size, seed: number)
    checksums = (0..<geometry.count).map { index in
      bytes.withUnsafeBytes { crc32c(UnsafeRawBufferPointer(rebasing: $0[geometry.range(of: index)])) }
    }
    self.geometry = geometry
    self.bytes = bytes
    self.contains = (0..<contains).map { ObjectID(high: number, low: UInt64($0)) }
    self.flags = flags
  }

  var header: SpillHeader {
    SpillHeader(object: object, geometry: geometry, flags: flags, checksums: checksums, contains: contains)
  }

  func write(to directories: SpillDirectories) throws -> SpilledObject {
    try bytes.withUnsafeBytes {
      try directories.write(
        object, geometry: geometry, checksums: checksums, contains: contains, flags: flags, bytes: $0)
    }
  }

  /// Whether what is read is what was written, all of it.
  func isRead(from directories: SpillDirectories, _ spilled: SpilledObject) throws -> Bool {
    var memory = [UInt8](repeating: 0xA5, count: bytes.count)
    let read = try memory.withUnsafeMutableBytes { try directories.read(spilled, into: $0) }
    let described = try directories.describe(spilled)
    return memory == bytes && read.checksums == checksums && read.contains == contains
      && described.checksums == checksums && described.contains == contains
  }

  /// The name of its file.
  func name(_ instance: SpillInstance) -> String { "\(object).\(instance).spill" }
}

/// The error that reading `spilled` gives.
func readError(_ directories: SpillDirectories, _ spilled: SpilledObject) -> MobulaError? {
  let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: spilled.geometry.objectSize, alignment: 1)
  defer { memory.deallocate() }
  do throws(MobulaError) {
    _ = try directories.read(spilled, into: memory)
    return nil
  } catch {
    return error
  }
}

/// Paths of all that is no folder, from `folder` on, in order.
func files(below folder: String, _ prefix: String = "") -> [String] {
  fileEntries(of: folder).sorted().flatMap { name in
    isFolder("\(folder)/\(name)") ? files(below: "\(folder)/\(name)", "\(prefix)\(name)/") : ["\(prefix)\(name)"]
  }
}

/// Permission bits, or `nil` when there is nothing.
func mode(of path: String) -> mode_t? {
  var status = stat()
  return lstat(path, &status) == 0 ? status.st_mode & 0o7777 : nil
}

/// Changes the byte at `offset`; from the end when negative.
func damage(_ path: String, at offset: Int) {
  let file = open(path, O_RDWR | O_CLOEXEC)
  precondition(file >= 0, "\(path): \(errnoText(currentErrno()))")
  defer { close(file) }
  let place = off_t(offset < 0 ? Int(lseek(file, 0, SEEK_END)) + offset : offset)
  var byte: UInt8 = 0
  precondition(pread(file, &byte, 1, place) == 1)
  byte ^= 0x10
  precondition(pwrite(file, &byte, 1, place) == 1)
}

/// Makes a file of `count` zeros.
func makeFile(_ path: String, count: Int = 0) {
  let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
  precondition(file >= 0 && ftruncate(file, off_t(count)) == 0, "\(path): \(errnoText(currentErrno()))")
  close(file)
}

private func descriptors(below folder: String) -> [String] {
  fileEntries(of: "/proc/self/fd").compactMap { entry in
    var buffer = [UInt8](repeating: 0, count: 512)
    let count = buffer.withUnsafeMutableBytes {
      readlink("/proc/self/fd/\(entry)", $0.baseAddress!.assumingMemoryBound(to: CChar.self), 512)
    }
    let target = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
    return target.hasPrefix(folder) ? target : nil
  }
}

private func isFolder(_ path: String) -> Bool {
  var status = stat()
  return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

private func fileEntries(of folder: String) -> [String] {
  guard let directory = opendir(folder) else { return [] }
  defer { closedir(directory) }
  var names: [String] = []
  while let entry = readdir(directory) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name != ".", name != ".." { names.append(name) }
  }
  return names
}

func removeTree(_ folder: String) {
  for name in fileEntries(of: folder) {
    if isFolder("\(folder)/\(name)") { removeTree("\(folder)/\(name)") } else { unlink("\(folder)/\(name)") }
  }
  rmdir(folder)
}
