import Glibc
import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

/// Spill files in real folders.
struct SpillDirectoriesTests {
  private let instance = SpillInstance(high: 3, low: 4)

  @Test(arguments: [1, 4095, 4096, 65_536, 262_145, 8_388_608, 8_388_609, 20 * 1_048_576])
  func objectsComeBackAsTheyWere(size: Int) async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: instance)
      let sample = try SpillSample(size: size, contains: size % 5, flags: UInt64(size) << 40)
      let spilled = try sample.write(to: directories)
      #expect(
        spilled
          == SpilledObject(
            object: sample.object, geometry: sample.geometry, directory: 0, fileSize: sample.header.fileSize,
            flags: sample.flags))
      #expect(try sample.isRead(from: directories, spilled))
      #expect(files(below: root) == [sample.name(instance), "\(instance).lock"].sorted())
      directories.remove(spilled)
      #expect(readError(directories, spilled)?.code == .notFound)
      directories.remove(spilled)
      #expect(files(below: root) == ["\(instance).lock"])
      directories.removeAll()
    }
  }

  @Test func aFolderThatWasRemovedIsUsedAgain() async throws {
    try await withSpillFolder { root in
      let paths = ["\(root)/a/b", "\(root)/c"]
      let directories = try SpillDirectories(paths: paths, instance: instance)
      let samples = try (1...8).map { try SpillSample(UInt64($0), size: 1000) }
      let first = try samples[..<2].map { try $0.write(to: directories) }
      #expect(first.map(\.directory) == [0, 1])
      removeTree("\(root)/a")
      // Made again by the store, or by somebody else.
      let second = try samples[2..<4].map { try $0.write(to: directories) }
      #expect(second.map(\.directory) == [0, 1])
      removeTree("\(root)/a")
      for path in ["\(root)/a", paths[0]] { #expect(mkdir(path, 0o700) == 0) }
      let third = try samples[4..<6].map { try $0.write(to: directories) }
      #expect(third.map(\.directory) == [0, 1])
      for (sample, spilled) in zip(samples[3...], [second[1]] + third) {
        #expect(try sample.isRead(from: directories, spilled))
      }
      for lost in [first[0], second[0]] { #expect(readError(directories, lost)?.code == .notFound) }
      // It can't be made: the other one has to do.
      removeTree("\(root)/a")
      #expect(fclose(fopen("\(root)/a", "w")) == 0)
      let last = try samples[6...].map { try $0.write(to: directories) }
      #expect(last.map(\.directory) == [1, 1])
      directories.removeAll()
      #expect(unlink("\(root)/a") == 0 && rmdir(paths[1]) == 0)
    }
  }

  /// 500 chunks and 2000 objects inside: the header is longer than what is read at first.
  @Test func aLongHeaderComesBack() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: 3, 4)
      let sample = try SpillSample(size: 1, contains: 2000)
      let bytes = [UInt8](repeating: 7, count: 500 * 65_536 - 5)
      let geometry = try ChunkGeometry(objectSize: bytes.count, chunkSize: 65_536)
      let checksums = (0..<geometry.count).map { index in
        bytes[geometry.range(of: index)].withUnsafeBytes { crc32c($0) }
      }
      let spilled = try bytes.withUnsafeBytes {
        try directories.write(
          sample.object, geometry: geometry, checksums: checksums, contains: sample.contains, flags: 0, bytes: $0)
      }
      #expect(spilled.fileSize == 36_864 + bytes.count)
      #expect(readError(directories, spilled) == nil)
      #expect(try directories.describe(spilled).contains == sample.contains)
      #expect(try directories.describe(spilled).checksums == checksums)
      #expect(directories.recover() == [spilled])
      directories.removeAll()
    }
  }

  /// Four chunks of 64 KiB, the last one short, and three objects inside: one byte of each part of the file.
  @Test(arguments: [0, 8, 16, 20, 24, 39, 40, 48, 56, 64, 79, 80, 127, 128, 4095])
  func aDamagedHeaderIsFound(offset: Int) async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: instance)
      let sample = try SpillSample(size: 200_000, chunkSize: 65_536, contains: 3)
      let spilled = try sample.write(to: directories)
      let path = "\(root)/\(sample.name(instance))"
      damage(path, at: offset)
      let error = try #require(readError(directories, spilled))
      #expect(error.code == .corrupted && error.message.contains(path), "\(error)")
      #expect(code { _ = try directories.describe(spilled) } == .corrupted)
      #expect(directories.recover() == [])
      #expect(files(below: root) == ["\(instance).lock"], "a damaged file is no use to anybody")
      directories.removeAll()
    }
  }

  @Test(arguments: [(4096, 0), (4096 + 65_535, 0), (4096 + 65_536, 1), (4096 + 150_000, 2), (-1, 3)])
  func aDamagedChunkIsFoundAndNamed(offset: Int, chunk: Int) async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: instance)
      let sample = try SpillSample(size: 200_000, chunkSize: 65_536, contains: 3)
      let spilled = try sample.write(to: directories)
      let path = "\(root)/\(sample.name(instance))"
      damage(path, at: offset)
      let error = try #require(readError(directories, spilled))
      #expect(error.code == .corrupted, "\(error)")
      #expect(error.message.contains(path) && error.message.contains("chunk \(chunk) of 4"), "\(error)")
      #expect(try directories.describe(spilled).checksums == sample.checksums)
      directories.removeAll()
    }
  }

  @Test(arguments: [0, 1, 63, 64, 4095, 4096, 204_094, 204_095, 204_097])
  func aFileOfAnotherSizeIsFound(size: Int) async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: instance)
      let sample = try SpillSample(size: 200_000)
      let spilled = try sample.write(to: directories)
      #expect(spilled.fileSize == 204_096)
      #expect(truncate("\(root)/\(sample.name(instance))", off_t(size)) == 0)
      #expect(readError(directories, spilled)?.code == .corrupted)
      #expect(code { _ = try directories.describe(spilled) } == .corrupted)
      #expect(directories.recover() == [])
      directories.removeAll()
    }
  }

  @Test func aFileOfAnotherObjectIsFound() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: instance)
      let one = try SpillSample(1, size: 1000), two = try SpillSample(2, size: 1000)
      let (first, second) = (try one.write(to: directories), try two.write(to: directories))
      #expect(rename("\(root)/\(one.name(instance))", "\(root)/\(two.name(instance))") == 0)
      #expect(readError(directories, first)?.code == .notFound)
      #expect(readError(directories, second)?.code == .corrupted)
      #expect(directories.recover() == [])
      directories.removeAll()
    }
  }

  @Test func aFileThatCannotBeReadIsAnInputOutputError() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: instance)
      let sample = try SpillSample(size: 1000)
      let spilled = try sample.write(to: directories)
      let path = "\(root)/\(sample.name(instance))"
      #expect(unlink(path) == 0 && symlink("/etc/passwd", path) == 0)
      #expect(readError(directories, spilled)?.code == .inputOutput, "links are not followed")
      #expect(directories.recover() == [])
      directories.removeAll()
    }
  }

  @Test func aSecondWriteTakesThePlaceOfTheFirst() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: [root], instance: instance)
      let old = try SpillSample(size: 1000), new = try SpillSample(size: 2000)
      let first = try old.write(to: directories), second = try new.write(to: directories)
      #expect(readError(directories, first)?.code == .corrupted)
      #expect(try new.isRead(from: directories, second))
      directories.removeAll()
    }
  }

  // MARK: Folders

  @Test func objectsAreSpreadOverTheFolders() async throws {
    try await withSpillFolder { root in
      let paths = ["\(root)/a", "\(root)/b/c/"]
      let directories = try SpillDirectories(paths: paths, instance: instance)
      let samples = try (1...5).map { try SpillSample(UInt64($0), size: 1000 * $0) }
      let spilled = try samples.map { try $0.write(to: directories) }
      #expect(spilled.map(\.directory) == [0, 1, 0, 1, 0])
      #expect(files(below: paths[0]).count == 4 && files(below: paths[1]).count == 3)
      for (sample, spilled) in zip(samples, spilled) { #expect(try sample.isRead(from: directories, spilled)) }
      #expect(directories.recover() == spilled)
      directories.removeAll()
    }
  }

  @Test func onlyTheUserMayRead() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: ["\(root)/a/b"], instance: instance)
      let sample = try SpillSample(size: 10)
      _ = try sample.write(to: directories)
      #expect(mode(of: "\(root)/a") == 0o700 && mode(of: "\(root)/a/b") == 0o700)
      #expect(mode(of: "\(root)/a/b/\(sample.name(instance))") == 0o600)
      #expect(mode(of: "\(root)/a/b/\(instance).lock") == 0o600)
      directories.removeAll()
    }
  }

  @Test func foldersThatCannotBeUsedAreRefused() async throws {
    try await withSpillFolder { root in
      func refusal(_ paths: String...) -> MobulaError.Code? {
        code { _ = try SpillDirectories(paths: paths, instance: instance) }
      }
      let file = "\(root)/file"
      makeFile(file)
      #expect(code { _ = try SpillDirectories(paths: [], instance: instance) } == .invalidArgument)
      #expect(refusal("") == .invalidArgument)
      #expect(refusal("\(root)/a\0b") == .invalidArgument)
      #expect(refusal("\(root)/a", "\(root)/./a") == .invalidArgument, "the same folder twice")
      #expect(refusal(file) == .inputOutput)
      #expect(refusal("\(file)/a") == .inputOutput)
      #expect(refusal("/proc/mobula") == .inputOutput)
      #expect(chmod("\(root)/a", 0o770) == 0)
      #expect(refusal("\(root)/a") == .denied, "others may write there")
      unlink(file)
      #expect(files(below: root) == [], "locks that were taken are given back")
    }
  }

  @Test func aFolderOfAnotherUserIsRefused() async throws {
    try await withSpillFolder { root in
      guard geteuid() == 0 else {
        #expect(code { _ = try SpillDirectories(paths: ["/usr"], instance: instance) } == .denied)
        return
      }
      #expect(mkdir("\(root)/a", 0o700) == 0 && chown("\(root)/a", 65_534, 65_534) == 0)
      #expect(code { _ = try SpillDirectories(paths: ["\(root)/a"], instance: instance) } == .denied)
    }
  }

  @Test func anotherFolderIsTriedWhenOneIsGone() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: ["\(root)/a", "\(root)/b"], instance: instance)
      // With something in its place that is no folder, so that it can't be made again.
      func replace(_ folder: String) {
        #expect(unlink("\(root)/\(folder)/\(instance).lock") == 0 && rmdir("\(root)/\(folder)") == 0)
        #expect(symlink("/dev/null", "\(root)/\(folder)") == 0)
      }
      defer { _ = unlink("\(root)/a") + unlink("\(root)/b") }
      replace("a")
      for number in 1...3 as ClosedRange<UInt64> {
        let sample = try SpillSample(number, size: 5000)
        let spilled = try sample.write(to: directories)
        #expect(spilled.directory == 1)
        #expect(try sample.isRead(from: directories, spilled))
        directories.remove(spilled)
      }
      replace("b")
      let error = #expect(throws: MobulaError.self) { try SpillSample(size: 5000).write(to: directories) }
      #expect(error?.code == .inputOutput)
      #expect(error?.message.contains("\(root)/a: No such file") == true, "\(error?.message ?? "")")
      #expect(error?.message.contains("\(root)/b: No such file") == true, "\(error?.message ?? "")")
    }
  }

  // MARK: Threads

  @Test func manyTasksWriteReadAndRemove() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: ["\(root)/a", "\(root)/b"], instance: instance)
      try await withThrowingTaskGroup(of: Void.self) { group in
        for task in 0..<6 as Range<UInt64> {
          group.addTask {
            for round in 0..<20 as Range<UInt64> {
              let sample = try SpillSample(task * 100 + round, size: Int(1 + 3000 * round))
              let spilled = try sample.write(to: directories)
              #expect(try sample.isRead(from: directories, spilled))
              if !round.isMultiple(of: 4) { directories.remove(spilled) }
            }
          }
        }
        try await group.waitForAll()
      }
      #expect(directories.recover().count == 30)
      directories.removeAll()
    }
  }

  @Test func nothingAppearsAfterTheEnd() async throws {
    try await withSpillFolder { root in
      let directories = try SpillDirectories(paths: ["\(root)/a", "\(root)/b"], instance: instance)
      try await withThrowingTaskGroup(of: MobulaError.Code?.self) { group in
        for task in 0..<3 as Range<UInt64> {
          group.addTask {
            // On threads of their own: writers that never suspend would keep everybody else from running.
            // And of an end, so that a test that goes wrong does not fill the disk.
            try await onThread(named: "writer \(task)") {
              code {
                for number in 0..<20_000 as Range<UInt64> {
                  _ = try SpillSample(task << 32 + number % 50, size: 10_000).write(to: directories)
                }
              }
            }
          }
        }
        while files(below: root).count < 20 { await Task.yield() }
        directories.removeAll()
        for try await end in group { #expect(end == .unavailable) }
      }
      #expect(directories.recover() == [])
    }
  }
}
