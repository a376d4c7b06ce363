import FoundationEssentials
import Glibc
package import MobulaCore
package import MobulaWire

/// The directory in which a host keeps its sockets, its token, its logs and what it was started with.
package struct RunDirectory {
  package let path: String

  package init(path: String) { self.path = path }

  package var tokenFile: String { HostPaths.token(in: path) }
  package var configurationFile: String { HostPaths.configuration(in: path) }
  package var lockFile: String { HostPaths.supervisor(in: path) }
  package var logFile: String { HostPaths.logs(in: path) + "/mobula.log" }

  /// The last sentence in the log that says why a process does not run.
  func lastError() -> String? {
    let mark = "Error: "
    return endOfFile(logFile, bytes: 16_384).split(separator: "\n").last { $0.hasPrefix(mark) }
      .map { String($0.dropFirst(mark.count)) }
  }

  /// Makes the directory, for this user alone.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when it can't be made, `denied` when it is not this user's, or others may
  ///   write to it, `invalidArgument` when sockets in it would have too long a path.
  package func create() throws(MobulaError) {
    guard path.hasPrefix("/") else {
      throw MobulaError(
        .inputOutput, "The current folder is gone: change to another, or give a whole path with --directory.")
    }
    // A socket's address has room for so much.
    let limit = 107 - HostPaths.socketNameBytes
    guard path.utf8.count <= limit, !path.utf8.contains(0) else {
      throw MobulaError(
        .invalidArgument,
        "The directory \(path) has a path of \(path.utf8.count) bytes, and sockets in it allow \(limit): choose a shorter one with --directory."
      )
    }
    try OwnFolder.make(path, "--directory")
    try OwnFolder.make(HostPaths.logs(in: path), "--directory")
  }

  /// Keeps other starts out until what it returns goes.
  ///
  /// - Throws: `MobulaError` (`alreadyExists`) while another start is at it.
  package func lockWhileStarting() throws(MobulaError) -> OwnedDescriptor {
    let folder = OwnedDescriptor(
      owning: try systemCall("\(path) can't be opened") { open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
    // Not every file system has locks.
    guard flock(folder.rawValue, LOCK_EX | LOCK_NB) == 0 || currentErrno() != EWOULDBLOCK else {
      throw MobulaError(
        .alreadyExists,
        "A host is just being started in \(path): wait until it is up (`mobula status --directory \(path)`), or choose another --directory."
      )
    }
    return folder
  }

  package func write(_ configuration: StartConfiguration) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    try writeDurably(Array(try encoder.encode(configuration)), configurationFile)
  }

  package func readConfiguration() throws -> StartConfiguration {
    guard let data = try? Data(contentsOf: URL(filePath: configurationFile)) else {
      throw MobulaError(.notFound, "Nothing was started in \(path): run `mobula start` first.")
    }
    do { return try JSONDecoder().decode(StartConfiguration.self, from: data) } catch {
      throw MobulaError(.corrupted, "\(configurationFile) can't be read: remove it and run `mobula start` again.")
    }
  }

  /// The cluster's token, as it is in its file from now on; what it is replaced with goes into the state directory, too.
  package func token() throws(MobulaError) -> ClusterToken {
    let state = (try? readConfiguration())?.state.map { StateDirectory(path: $0).tokenFile }
    return try ClusterToken.following(tokenFile, copies: state.map { [$0] } ?? [])
  }

  /// `nil` when the host was started without.
  package func tls() throws(MobulaError) -> ClusterTLS? { try HostPaths.tls(in: path) }

  /// Takes the lock that a supervisor keeps while it runs.
  ///
  /// - Returns: its descriptor, or `nil` when another supervisor has it.
  package func lock() throws(MobulaError) -> CInt? {
    let descriptor = try systemCall("\(lockFile) can't be opened") {
      open(lockFile, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    }
    // Whoever asks whether a supervisor runs has it for a moment.
    var attempts = 0
    while flock(descriptor, LOCK_EX | LOCK_NB) != 0, attempts < 20 {
      usleep(5000)
      attempts += 1
    }
    if attempts < 20 {
      let text = Array("\(getpid())\n".utf8)
      ftruncate(descriptor, 0)
      _ = pwrite(descriptor, text, text.count, 0)
      return descriptor
    }
    close(descriptor)
    return nil
  }

  /// Removes the sockets of processes that were killed, once none runs here.
  package func removeSockets() {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    for name in names where name.hasSuffix(".sock") { unlink(path + "/" + name) }
  }

  /// The process id of the supervisor that runs here.
  package func supervisor() -> Int32? {
    // Whoever runs has the lock; a stale file has none.
    if HostPaths.isSupervised(in: path) == false { return nil }
    let descriptor = open(lockFile, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var buffer = [UInt8](repeating: 0, count: 16)
    let count = read(descriptor, &buffer, buffer.count)
    guard count > 0 else { return nil }
    return Int32(String(decoding: buffer[..<count], as: UTF8.self).filter(\.isNumber))
  }
}
