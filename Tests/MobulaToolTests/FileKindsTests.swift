import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// Files of every kind as what is put and what is written: devices, FIFOs, links, pipes, those of /proc.
@Suite struct FileKindsTests {
  private static let bytes = Data((0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 131 >> 5) })

  private struct Status {
    let kind: mode_t
    let mode: mode_t
    let inode: UInt

    init(_ path: String) throws {
      var status = stat()
      try systemCall("lstat") { lstat(path, &status) }
      (kind, mode, inode) = (status.st_mode & S_IFMT, status.st_mode & 0o777, UInt(status.st_ino))
    }
  }

  /// A cluster that has the bytes as `x`, and a folder.
  private func withObject(_ body: (TestCluster, String) async throws -> Void) async throws {
    try await withCluster(["--spill", "none"]) { cluster in
      let folder = cluster.folder.path + "/files"
      mkdir(folder, 0o700)
      try Self.bytes.write(to: URL(filePath: cluster.folder.path + "/x"))
      #expect(try await cluster.mobula("put", cluster.folder.path + "/x").status.isSuccess)
      try await body(cluster, folder)
    }
  }

  private func content(_ path: String) throws -> Data { try Data(contentsOf: URL(filePath: path)) }

  /// A shell's command line with the tool as `$MOBULA`.
  private func shell(
    _ cluster: TestCluster, _ script: String, _ arguments: String..., within limit: Duration = .seconds(60)
  ) async throws -> Finished {
    try await run(
      "/bin/sh", ["-c", script, "sh"] + arguments,
      environment: cluster.environment(0).merging(["MOBULA": Products.mobula]) { $1 }, within: limit)
  }

  /// What can't be got leaves no folder that says that something is in it.
  @Test func foldersAreMadeWithTheirFirstFile() async throws {
    try await withObject { cluster, folder in
      let missing = try await cluster.mobula("get", "nothing", "-o", folder + "/new/")
      #expect(missing.status == .status(1) && access(folder + "/new", F_OK) != 0, "\(missing)")
      #expect(try await cluster.mobula("get", "x", "-o", folder + "/new/", "-q").status.isSuccess)
      #expect(try content(folder + "/new/x") == Self.bytes)
      // Of several that are not there, one may be mistyped.
      let deep = try await cluster.mobula("get", "x", "-o", folder + "/a/b/")
      #expect(deep.status == .status(1) && access(folder + "/a", F_OK) != 0, "\(deep)")
    }
  }

  @Test func outputsStayWhatTheyAre() async throws {
    try await withObject { cluster, folder in
      func get(_ path: String) async throws -> Finished { try await cluster.mobula("get", "x", "-o", path) }

      // A link's target is written, whether it is there or not.
      try Data("old".utf8).write(to: URL(filePath: folder + "/target"))
      chmod(folder + "/target", 0o600)
      symlink("target", folder + "/link")
      symlink("nowhere", folder + "/dangling")
      for (link, target) in [("link", "target"), ("dangling", "nowhere")] {
        #expect(try await get("\(folder)/\(link)").status.isSuccess)
        #expect(try Status("\(folder)/\(link)").kind == S_IFLNK)
        #expect(try content("\(folder)/\(target)") == Self.bytes)
      }
      #expect(try Status(folder + "/target").mode == 0o600)

      // Names of one file go on being that.
      try Data(repeating: 1, count: 300_000).write(to: URL(filePath: folder + "/first"))
      link(folder + "/first", folder + "/second")
      let written = try await get(folder + "/first")
      #expect(written.status.isSuccess && written.errors.contains("in place"), "\(written)")
      #expect(try content(folder + "/second") == Self.bytes)

      // A folder gets a file of the object's name.
      #expect(try await get(folder).status.isSuccess)
      #expect(try content(folder + "/x") == Self.bytes)
      #expect(try await get(folder + "/new/").status.isSuccess)
      #expect(try content(folder + "/new/x") == Self.bytes)

      #expect(try await get("/dev/null").status.isSuccess)
      #expect(try Status("/dev/null").kind == S_IFCHR)
      let full = try await get("/dev/full")
      #expect(full.status == .status(1) && full.errors.contains("No space left"), "\(full)")

      let long = folder + "/" + String(repeating: "n", count: 255)
      #expect(try await get(long).status.isSuccess)
      #expect(try content(long) == Self.bytes)
      let longer = try await get(long + "n")
      #expect(longer.status == .status(1) && longer.errors.contains("too long"), "\(longer)")

      let left = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasPrefix(".mobula") }
      #expect(left.isEmpty, "\(left)")
    }
  }

  @Test func folderNamesAreNoWayOut() async throws {
    try await withObject { cluster, folder in
      for name in ["../escaped", "a/..", "..", "."] {
        #expect(try await cluster.mobula("put", cluster.folder.path + "/x", "--name", name).status.isSuccess)
        let got = try await cluster.mobula("get", name, "-o", folder)
        // Either into the folder, by the name's last part, or refused.
        #expect(got.status == (name == "../escaped" ? .status(0) : .status(1)), "\(name): \(got)")
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["escaped"])
    }
  }

  @Test func standardStreams() async throws {
    try await withObject { cluster, folder in
      let piped = try await shell(
        cluster, "cd \"$1\" && cat ../x | $MOBULA put - --name piped && $MOBULA get piped -o - > out", folder)
      #expect(piped.status.isSuccess, "\(piped)")
      #expect(try content(folder + "/out") == Self.bytes)
      // As `-`: a descriptor with its place in the file.
      let appended = try await shell(
        cluster, "cd \"$1\" && { echo head; $MOBULA get x -o /dev/stdout; } > joined", folder)
      #expect(appended.status.isSuccess, "\(appended)")
      #expect(try content(folder + "/joined").starts(with: Data("head\n".utf8) + Self.bytes))
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["joined", "out"])

      // Who reads has enough: as SIGPIPE would end it, without a word.
      let cut = try await shell(cluster, "{ $MOBULA get x -o -; echo $? >&2; } | head -c 10 > /dev/null")
      #expect(cut.errors.hasSuffix("141\n") && !cut.errors.contains("Error"), "\(cut)")
      let closed = try await shell(cluster, "$MOBULA get x -o - >&-")
      #expect(closed.status == .status(1) && closed.errors.contains("Standard output"), "\(closed)")
      let nameless = try await shell(cluster, "echo | $MOBULA put -")
      #expect(nameless.status == .status(64) && nameless.errors.contains("--name"), "\(nameless)")
      let nothing = try await shell(cluster, "$MOBULA put - --name closed <&-")
      #expect(nothing.status == .status(1) && nothing.errors.contains("Standard input"), "\(nothing)")
      #expect(try await cluster.mobula("get", "x", "-o", "-", "--json").status == .status(64))
    }
  }

  @Test func inputsAreReadToTheirEnd() async throws {
    try await withObject { cluster, folder in
      func back(_ name: String) async throws -> Data {
        let got = try await cluster.mobula("get", name, "-o", folder + "/back")
        #expect(got.status.isSuccess, "\(got)")
        return try content(folder + "/back")
      }
      let system = "/sys/kernel/mm/transparent_hugepage/enabled"
      for (name, path) in [("proc", "/proc/version"), ("sys", system), ("empty", folder + "/empty")] {
        if name == "empty" { try Data().write(to: URL(filePath: path)) }
        guard access(path, R_OK) == 0 else { continue }
        let put = try await cluster.mobula("put", path, "--name", name)
        #expect(put.status.isSuccess, "\(put)")
        #expect(try await back(name) == content(path))
      }

      // Somebody writes only later, in two pieces; more than what a pipe holds.
      mkfifo(folder + "/fifo", 0o600)
      let through = try await shell(
        cluster, "{ sleep 0.3; cat \"$1/../x\"; sleep 0.2; cat \"$1/../x\"; } > \"$1/fifo\" & $MOBULA put \"$1/fifo\"",
        folder)
      #expect(through.status.isSuccess, "\(through)")
      #expect(try await back("fifo") == Self.bytes + Self.bytes)

      let listener = try UnixListener(folder + "/socket")
      for (path, status, word) in [("/dev/zero", 1, "device"), (listener.path, 1, "socket"), ("", 64, "empty")] {
        let put = try await cluster.mobula("put", path, "--name", "never", within: .seconds(10))
        #expect(put.status == .status(Int32(status)) && put.errors.contains(word), "\(put)")
      }
      // In a folder they are passed over: one of them would never end.
      let inFolder = try await cluster.mobula("put", folder, "--name", "all/", "-q", within: .seconds(10))
      #expect(inFolder.status.isSuccess && inFolder.errors.contains("\(folder)/fifo is no file"), "\(inFolder)")
      // Without an end, but not without a limit.
      let endless = try await shell(cluster, "$MOBULA put - --name never < /dev/zero")
      #expect(endless.status == .status(1) && endless.errors.contains("--capacity"), "\(endless)")
      // A size that no object can have.
      let huge = open(folder + "/huge", O_CREAT | O_WRONLY, 0o600)
      if ftruncate(huge, 1 << 50) == 0 {
        let put = try await cluster.mobula("put", folder + "/huge")
        #expect(put.status == .status(1) && put.errors.contains("Error: "), "\(put)")
      }
      close(huge)
      withExtendedLifetime(listener) {}
    }
  }

  @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
  func signalsLeaveNothing(_ signal: CInt) async throws {
    try await withObject { cluster, folder in
      mkfifo(folder + "/fifo", 0o600)
      // Each waits for the FIFO's other end when the signal comes.
      for arguments in [["put", folder + "/fifo"], ["get", "x", "-o", folder + "/fifo"]] {
        let child = try ChildProcess.spawn(
          Products.mobula, arguments, environment: currentEnvironment().merging(cluster.environment(0)) { $1 },
          output: .null, errors: .null)
        try await Task.sleep(for: .milliseconds(500))
        child.signal(signal)
        #expect(await child.waitForExit() == .status(128 + signal), "\(arguments)")
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["fifo"])
    }
  }

  @Test func limitsAreNamed() async throws {
    try await withObject { cluster, folder in
      try Data("old".utf8).write(to: URL(filePath: folder + "/file"))
      let got = try await shell(cluster, "ulimit -f 64; exec $MOBULA get x -o \"$1/file\"", folder)
      #expect(got.status == .status(1) && got.errors.contains("ulimit -f"), "\(got)")
      #expect(try content(folder + "/file") == Data("old".utf8), "what was there stays")
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["file"])
    }
  }
}

/// A Unix socket that listens.
private struct UnixListener: ~Copyable {
  let path: String
  private let descriptor: OwnedDescriptor

  init(_ path: String) throws {
    let owned = OwnedDescriptor(
      owning: try systemCall("socket") { socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0) })
    let raw = owned.rawValue
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    try systemCall("bind") {
      withUnsafeBytes(of: &address) {
        bind(raw, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
      }
    }
    self.path = path
    descriptor = owned
  }
}
