import Glibc
import MobulaCore
import Testing

struct MemoryFileTests {
  private let size = 4 * pageSize

  @Test func readersSeeWhatIsWrittenAndCannotWrite() throws {
    let file = try MemoryFile.create(name: "test", size: size)
    let writable = try MemoryMapping(file.rawValue, count: size, access: .readWrite)
    let reader = try MemoryFile.readOnly(file)
    let readable = try MemoryMapping(reader.rawValue, count: size, access: .readOnly)
    writable.bytes[size - 1] = 42
    #expect(readable.bytes[size - 1] == 42)
    #expect(readable.bytes[0] == 0)
    #expect(throws: MobulaError.self) { try MemoryMapping(reader.rawValue, count: size, access: .readWrite) }
    var byte: UInt8 = 1
    #expect(write(reader.rawValue, &byte, 1) == -1)
    // A reader of another user has no way back to a writable descriptor: the file's mode forbids it.
    var status = stat()
    #expect(fstat(reader.rawValue, &status) == 0)
    #expect(status.st_mode & 0o777 == 0o400)
  }

  @Test func sealedFilesTakeNoNewWriters() throws {
    let file = try MemoryFile.create(name: "test", size: size)
    let before = try MemoryMapping(file.rawValue, count: size, access: .readWrite)
    try MemoryFile.sealFutureWrites(file)
    #expect(throws: MobulaError.self) { try MemoryMapping(file.rawValue, count: size, access: .readWrite) }
    var byte: UInt8 = 1
    #expect(pwrite(file.rawValue, &byte, 1, 0) == -1)
    // The mapping that was there still works, and is seen through new ones.
    before.bytes[7] = 9
    #expect(try MemoryMapping(file.rawValue, count: size, access: .readOnly).bytes[7] == 9)
  }

  @Test func filesKeepTheirSize() throws {
    let file = try MemoryFile.create(name: "test", size: size)
    #expect(ftruncate(file.rawValue, size + 1) == -1)
    #expect(ftruncate(file.rawValue, size - 1) == -1)
    var byte: UInt8 = 1
    #expect(pwrite(file.rawValue, &byte, 1, size) == -1)
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
