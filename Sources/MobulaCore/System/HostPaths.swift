import Glibc

/// Where a host has its files, for who listens or writes there and for who connects or reads.
package enum HostPaths {
  /// The socket that processes of the host connect to.
  package static func host(in directory: String) -> String { directory + "/host.sock" }
  /// The store's own socket, which hands out its memory.
  package static func store(in directory: String) -> String { directory + "/store.sock" }
  /// The socket of a pod; `pod` is its short text.
  package static func pod(_ pod: String, in directory: String) -> String { "\(directory)/pod-\(pod).sock" }
  /// The folder of logs: the host's own, and the workers'.
  package static func logs(in directory: String) -> String { directory + "/logs" }
  /// The log of a worker: what it prints.
  package static func workerLog(_ worker: WorkerID, of job: JobID, in directory: String) -> String {
    "\(logs(in: directory))/worker-\(job)-\(worker.short).log"
  }
  /// The job and the short form of the worker that a file of this name is the log of; `nil` for other files.
  package static func workerLog(named name: String) -> (job: String, worker: String)? {
    let parts = name.split(separator: "-")
    guard parts.count == 3, parts[0] == "worker", parts[2].hasSuffix(".log") else { return nil }
    return (String(parts[1]), String(parts[2].dropLast(4)))
  }
  /// The identifier of the cluster whose head was reached last, for a host that is started again while there is none.
  package static func cluster(in directory: String) -> String { directory + "/cluster" }
  /// The cluster's token.
  package static func token(in directory: String) -> String { directory + "/token" }
  /// What `mobula start` was given.
  package static func configuration(in directory: String) -> String { directory + "/configuration.json" }
  /// What the supervisor of the host's processes has locked while it runs.
  package static func supervisor(in directory: String) -> String { directory + "/supervisor.pid" }

  /// Whether a supervisor runs here, which starts the host again when it ends; `nil` where that can't be seen.
  package static func isSupervised(in directory: String) -> Bool? {
    let descriptor = open(supervisor(in: directory), O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return currentErrno() == ENOENT ? false : nil }
    defer { close(descriptor) }
    return flock(descriptor, LOCK_SH | LOCK_NB) != 0
  }

  /// What is told to those who were connected to a host whose supervisor has ended.
  package static func hasStopped(in directory: String) -> MobulaError {
    MobulaError(
      .connectionClosed,
      "The host in \(directory) was stopped: start it again with `mobula start`, and repeat what you did.")
  }

  /// The folder with this host's certificates, which is there when the host uses TLS.
  package static func certificates(in directory: String) -> String { directory + "/tls" }
  /// The longest name of a socket in it, with its slash, in bytes.
  package static let socketNameBytes = pod("00000000", in: "").utf8.count

  /// `MOBULA_DIRECTORY`; else `/run/mobula` for root, `~/.mobula` for others; where a user has no home, a folder in
  /// `/var/tmp`.
  package static func defaultDirectory(environment: [String: String]) -> String {
    if let directory = environment["MOBULA_DIRECTORY"], !directory.isEmpty { return absolute(directory) }
    if getuid() == 0 { return "/run/mobula" }
    return home(environment).map { $0 + "/.mobula" } ?? "/var/tmp/mobula-\(getuid())"
  }

  /// This user's home: by `HOME`, else by the users' database; `nil` where neither names one.
  package static func home(_ environment: [String: String]) -> String? {
    let known = getpwuid(getuid()).flatMap { $0.pointee.pw_dir }.map { String(cString: $0) }
    // A relative one would be another in every folder, and nothing is made in the root of the file system.
    return [environment["HOME"], known].compactMap(\.self)
      .first { $0.hasPrefix("/") && $0.contains { character in character != "/" } }
  }

  /// A path from the root; `path` itself where the current folder is gone.
  package static func absolute(_ path: String) -> String {
    if path.hasPrefix("/") { return path }
    guard let folder = getcwd(nil, 0) else { return path }
    defer { free(folder) }
    let text = String(cString: folder)
    return text == "/" ? "/" + path : text + "/" + path
  }
}
