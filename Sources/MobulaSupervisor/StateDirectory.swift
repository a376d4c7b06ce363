import FoundationEssentials
import Glibc
package import MobulaCore
package import MobulaWire

/// What a host, and the head on it, must find again after a reboot: the token, the certificates, who they are, and the
/// head's journal. Apart from the run directory, whose sockets and logs a reboot may take.
package struct StateDirectory {
  /// Who runs here, in whichever cluster.
  package struct Identity: Codable, Equatable {
    /// The cluster of the head here, or the one that was joined last.
    package var cluster: ClusterID?
    package var host: HostID
    /// Whether there was a head here, whose journal has to be there as well. Missing in the files of older builds.
    package var hadHead: Bool?

    package init(cluster: ClusterID?, host: HostID, hadHead: Bool?) {
      self.cluster = cluster
      self.host = host
      self.hadHead = hadHead
    }
  }

  package let path: String

  package init(path: String) { self.path = path }

  package var tokenFile: String { path + "/token" }
  package var identityFile: String { path + "/identity.json" }
  package var journalFile: String { path + "/journal.sqlite" }
  package var lockFile: String { path + "/supervisor.lock" }
  package var certificates: CertificateFolder { CertificateFolder(path + "/tls") }

  /// - Parameters:
  ///   - given: the folder that was asked for; `MOBULA_STATE` counts as such.
  ///   - directory: the run directory that was asked for, if one was, by option or `MOBULA_DIRECTORY`: then all lies
  ///     in there, so that one folder is one host.
  package static func choose(
    _ given: String?, directory: String?, environment: [String: String] = currentEnvironment()
  ) -> StateDirectory {
    func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
    if let given = given ?? value("MOBULA_STATE") { return StateDirectory(path: HostPaths.absolute(given)) }
    if let directory = directory ?? value("MOBULA_DIRECTORY") {
      return StateDirectory(path: HostPaths.absolute(directory) + "/state")
    }
    if getuid() == 0 { return StateDirectory(path: "/var/lib/mobula") }
    // The XDG Base Directory Specification has relative paths ignored.
    if let folder = value("XDG_STATE_HOME"), folder.hasPrefix("/") { return StateDirectory(path: folder + "/mobula") }
    guard let home = HostPaths.home(environment) else {
      return StateDirectory(path: "/var/tmp/mobula-\(getuid())/state")
    }
    return StateDirectory(path: home + "/.local/state/mobula")
  }

  /// Makes the folder, for this user alone.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when it can't be made, `denied` when it is another user's.
  package func create() throws(MobulaError) { try OwnFolder.make(path, "--state") }

  /// Takes the lock that a supervisor keeps while it runs: two hosts with one identity would take each other's place.
  ///
  /// - Parameter directory: the supervisor's run directory, for whoever is refused.
  /// - Returns: the lock's descriptor.
  /// - Throws: `MobulaError` (`alreadyExists`) while another supervisor has it.
  package func lock(for directory: String) throws(MobulaError) -> CInt {
    let descriptor = try systemCall("\(lockFile) can't be opened") {
      open(lockFile, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    }
    // Who looks whether it is free has it for a moment.
    var attempts = 0
    while flock(descriptor, LOCK_EX | LOCK_NB) != 0, attempts < 50 {
      attempts += 1
      usleep(10_000)
    }
    guard attempts < 50 else {
      let error = taken(descriptor)
      close(descriptor)
      throw error
    }
    let text = Array(directory.utf8)
    ftruncate(descriptor, 0)
    _ = pwrite(descriptor, text, text.count, 0)
    return descriptor
  }

  /// - Throws: `MobulaError` (`alreadyExists`) while a supervisor runs with this folder.
  package func checkIsFree() throws(MobulaError) {
    let descriptor = open(lockFile, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    // Whoever runs has the lock; a stale file has none.
    if flock(descriptor, LOCK_SH | LOCK_NB) != 0 { throw taken(descriptor) }
  }

  private func taken(_ descriptor: CInt) -> MobulaError {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = max(0, pread(descriptor, &buffer, buffer.count, 0))
    let directory = String(decoding: buffer[..<count], as: UTF8.self)
    return MobulaError(
      .alreadyExists,
      "The host in \(directory.isEmpty ? "another directory" : directory) runs with the state folder \(path): stop it first, or choose another folder with --state."
    )
  }

  /// Who was here before; `nil` when nobody was.
  ///
  /// - Throws: `MobulaError` (`corrupted`).
  package func identity() throws -> Identity? {
    guard let data = try? Data(contentsOf: URL(filePath: identityFile)) else { return nil }
    do {
      return try JSONDecoder().decode(Identity.self, from: data)
    } catch {
      throw MobulaError(
        .corrupted,
        "\(identityFile) can't be read: restore it from a backup, or remove it, and this host is a new one.")
    }
  }

  package func write(_ identity: Identity) throws(MobulaError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    guard let data = try? encoder.encode(identity) else { preconditionFailure("identifiers can be encoded") }
    try writeDurably(Array(data), identityFile)
  }

  /// Replaces the token.
  package func write(_ token: ClusterToken) throws(MobulaError) {
    let new = tokenFile + ".new"
    unlink(new)
    try token.write(file: new)
    try systemCall("\(tokenFile) can't be replaced") { rename(new, tokenFile) }
  }
}

/// Replaces a file as a whole, so that a loss of power leaves the old one or the new one. Only this user may read it.
func writeDurably(_ bytes: [UInt8], _ path: String) throws(MobulaError) {
  let what = "\(path) can't be written"
  let new = path + ".new"
  let descriptor = OwnedDescriptor(
    owning: try systemCall(what) { open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600) })
  var written = 0
  while written < bytes.count {
    written += try systemCall(what) {
      bytes.withUnsafeBytes { Glibc.write(descriptor.rawValue, $0.baseAddress! + written, $0.count - written) }
    }
  }
  try systemCall(what) { fsync(descriptor.rawValue) }
  try systemCall(what) { rename(new, path) }
}
