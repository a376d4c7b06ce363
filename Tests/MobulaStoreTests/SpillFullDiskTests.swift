import Glibc
import MobulaCore
import Testing

@testable import MobulaStore

/// Folders that are really full: file systems of 1 MiB that only the thread of a test sees.
@Suite(.enabled("skipped: a small file system can't be mounted (not root)") { await SmallDisk.isPossible })
struct SpillFullDiskTests {
  private static let instance = SpillInstance(high: 3, low: 4)

  @Test func aFullFolderIsAnError() async throws {
    try await withSpillFolder { root in
      let (error, left, before, after, fits) = try await SmallDisk.with([root]) {
        let directories = try SpillDirectories(paths: [root], instance: Self.instance)
        let before = SmallDisk.freeBytes(root)
        let error = Self.error { _ = try SpillSample(size: 2_000_000).write(to: directories) }
        let result = (error, files(below: root), before, SmallDisk.freeBytes(root))
        let sample = try SpillSample(2, size: 900_000)
        let fits = try sample.isRead(from: directories, sample.write(to: directories))
        return (result.0, result.1, result.2, result.3, fits)
      }
      #expect(error?.code == .full)
      #expect(
        error?.message.contains(root) == true && error?.message.contains("2 MB") == true, "\(error?.message ?? "")")
      #expect(left == ["\(Self.instance).lock"], "nothing is left of what failed")
      #expect(before == after && before > 900_000)
      #expect(fits, "a smaller object has room yet")
    }
  }

  @Test func theNextFolderIsTaken() async throws {
    try await withSpillFolder { root in
      let paths = ["\(root)/a", "\(root)/b"]
      for path in paths { #expect(mkdir(path, 0o700) == 0) }
      let (taken, areRead, error) = try await SmallDisk.with([paths[0]]) {
        let directories = try SpillDirectories(paths: paths, instance: Self.instance)
        let samples = try (1...4).map { try SpillSample(UInt64($0), size: 700_000) }
        let spilled = try samples.map { try $0.write(to: directories) }
        let areRead = try zip(samples, spilled).allSatisfy { try $0.isRead(from: directories, $1) }
        directories.removeAll()
        return (spilled.map(\.directory), areRead, files(below: root))
      }
      #expect(taken == [0, 1, 1, 1], "the first folder has room for one")
      #expect(areRead)
      #expect(error == [])
    }
  }

  @Test func allFoldersFullIsAnErrorThatNamesThem() async throws {
    try await withSpillFolder { root in
      let paths = ["\(root)/a", "\(root)/b"]
      for path in paths { #expect(mkdir(path, 0o700) == 0) }
      let (taken, error, again) = try await SmallDisk.with(paths) {
        let directories = try SpillDirectories(paths: paths, instance: Self.instance)
        let first = try SpillSample(1, size: 700_000).write(to: directories)
        let second = try SpillSample(2, size: 700_000).write(to: directories)
        let error = Self.error { _ = try SpillSample(3, size: 700_000).write(to: directories) }
        directories.remove(second)
        let again = try SpillSample(3, size: 700_000).write(to: directories)
        return ([first, second].map(\.directory), error, again.directory)
      }
      #expect(taken == [0, 1])
      #expect(error?.code == .full)
      #expect(paths.allSatisfy { error?.message.contains($0) == true }, "\(error?.message ?? "")")
      #expect(again == 1, "room that was made is used")
    }
  }

  private static func error(_ body: () throws -> Void) -> MobulaError? {
    do {
      try body()
      return nil
    } catch {
      return error as? MobulaError
    }
  }
}

struct SpillFailureTests {
  private func failure(_ folder: String, _ number: CInt) -> SpillFailure {
    SpillFailure(folder: folder, number: number)
  }

  @Test func onlyFullFoldersMakeAFullStore() {
    let full = SpillFailure.error(of: [failure("/a", ENOSPC), failure("/b", EDQUOT)], asked: 5_000_000)
    #expect(full.code == .full)
    #expect(full.message.contains("5 MB") && full.message.contains("/a, /b"))
    for number in [EIO, EROFS, ENOENT, EFBIG] {
      let broken = SpillFailure.error(of: [failure("/a", ENOSPC), failure("/b", number)], asked: 5_000_000)
      #expect(broken.code == .inputOutput)
      #expect(broken.message.contains("/a: No space left on device; /b: \(errnoText(number))"))
    }
  }
}

/// File systems of 1 MiB in a mount namespace of one thread, gone with the thread and the last descriptor.
private enum SmallDisk {
  static var isPossible: Bool {
    get async { (try? await with(["/tmp"]) { freeBytes("/tmp") < 2_000_000 }) ?? false }
  }

  /// Runs `body` on a thread that sees an empty file system of 1 MiB at each path.
  static func with<Value: Sendable>(
    _ paths: [String], _ body: @escaping @Sendable () throws -> Value
  ) async throws -> Value {
    try await onThread(named: "small disk") {
      try leaveMounts()
      for path in paths {
        try systemCall("\(path) can't become a tmpfs") { mount("mobula", path, "tmpfs", 0, "size=1m,mode=0700") }
      }
      return try body()
    }
  }

  static func freeBytes(_ path: String) -> Int {
    var status = statvfs()
    return statvfs(path, &status) == 0 ? Int(status.f_bavail) * Int(status.f_frsize) : -1
  }

  /// Gives the calling thread mounts of its own, whose changes nobody else sees.
  private static func leaveMounts() throws {
    // The importer does not show `unshare`, nor CLONE_NEWNS.
    typealias Unshare = @convention(c) (CInt) -> CInt
    guard let symbol = dlsym(nil, "unshare") else { throw MobulaError.system("`unshare` is not there") }
    let unshare = unsafeBitCast(symbol, to: Unshare.self)
    try systemCall("A mount namespace can't be made") { unshare(0x20000) }
    try systemCall("Mounts can't be made private") {
      mount(nil, "/", nil, UInt(MS_REC | MS_PRIVATE), nil)
    }
  }
}
