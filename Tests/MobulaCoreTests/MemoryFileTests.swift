import Glibc
import MobulaCore
import Testing

struct MemoryFileTests {
  private let size = 4 * pageSize

  /// Keeps the mapping until the byte is read: its bytes don't.
  private func byte(at index: Int, of mapping: MemoryMapping) -> UInt8 {
    withExtendedLifetime(mapping) { mapping.bytes[index] }
  }

  private func set(_ value: UInt8, at index: Int, of mapping: MemoryMapping) {
    withExtendedLifetime(mapping) { mapping.bytes[index] = value }
  }

  @Test func readersSeeWhatIsWrittenAndCannotWrite() throws {
    let file = try MemoryFile.create(name: "test", size: size)
    let writable = try MemoryMapping(file.rawValue, count: size, access: .readWrite)
    let reader = try MemoryFile.readOnly(file)
    let readable = try MemoryMapping(reader.rawValue, count: size, access: .readOnly)
    set(42, at: size - 1, of: writable)
    #expect(byte(at: size - 1, of: readable) == 42)
    #expect(byte(at: 0, of: readable) == 0)
    let descriptor = reader.rawValue
    #expect(throws: MobulaError.self) { try MemoryMapping(descriptor, count: size, access: .readWrite) }
    #expect(write(descriptor, "x", 1) == -1)
    // A reader of another user has no way back to a writable descriptor: the file's mode forbids it.
    var status = stat()
    #expect(fstat(descriptor, &status) == 0)
    #expect(status.st_mode & 0o777 == 0o400)
  }

  @Test func nobodyAddsSeals() throws {
    let file = try MemoryFile.create(name: "test", size: size)
    // F_ADD_SEALS with F_SEAL_FUTURE_WRITE and F_SEAL_WRITE, which the importer does not show.
    #expect(fcntl(file.rawValue, 1033, 0x10) == -1 && errno == EPERM)
    #expect(fcntl(file.rawValue, 1033, 0x8) == -1 && errno == EPERM)
    // So its memory can be given back, and others can map it.
    MemoryFile.giveBack(0..<size, of: file.rawValue)
    var status = stat()
    #expect(fstat(file.rawValue, &status) == 0 && status.st_blocks == 0)
    _ = try MemoryMapping(file.rawValue, count: size, access: .readWrite)
  }

  @Test func filesKeepTheirSize() throws {
    let file = try MemoryFile.create(name: "test", size: size)
    #expect(ftruncate(file.rawValue, size + 1) == -1)
    #expect(ftruncate(file.rawValue, size - 1) == -1)
    #expect(pwrite(file.rawValue, "x", 1, size) == -1)
    var status = stat()
    #expect(fstat(file.rawValue, &status) == 0)
    #expect(status.st_size == size)
    // Every page is there before anybody touches it: blocks of 512 bytes.
    #expect(status.st_blocks >= size / 512)
  }
}

struct DescriptorTests {
  private func isOpen(_ descriptor: CInt) -> Bool { fcntl(descriptor, F_GETFD) != -1 }

  /// By inode: the number may be somebody else's as soon as it is free.
  private func isSame(_ descriptor: CInt, _ file: stat) -> Bool {
    var status = stat()
    return fstat(descriptor, &status) == 0 && status.st_ino == file.st_ino && status.st_dev == file.st_dev
  }

  @Test func ownersCloseAndReleasedOnesDoNot() throws {
    var file = stat()
    let number: CInt
    do {
      let owned = try MemoryFile.create(name: "test", size: pageSize)
      number = owned.rawValue
      #expect(fstat(number, &file) == 0)
      let copy = try owned.duplicated()
      #expect(copy.rawValue != number && isSame(copy.rawValue, file))
      #expect(fcntl(copy.rawValue, F_GETFD) & FD_CLOEXEC != 0)
    }
    #expect(!isSame(number, file))

    let released = try MemoryFile.create(name: "test", size: pageSize).release()
    #expect(isOpen(released))
    close(released)
  }
}
