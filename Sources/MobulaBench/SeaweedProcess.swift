internal import Glibc
internal import MobulaCore

/// The server's process, its folder, and the guard that ends both when this process goes.
final class SeaweedProcess: Sendable {
  /// Names the folder in the server's environment.
  private static let mark = "MOBULA_SEAWEED_FOLDER"

  let folder: SeaweedFolder
  let server: ChildProcess
  let watchdog: ChildProcess
  /// The end of a socket pair that only this process holds: the guard acts when it is closed, at the
  /// latest with this process.
  private let lifeline: SharedDescriptor
  private let sockets: [String]

  init(
    program: String, address: String, ports: SeaweedPorts, accessKey: String, secretKey: String,
    iam: SeaweedIAM? = nil
  ) throws(MobulaError) {
    // Inside of namespaces it lives in what goes with them, and even its sockets do: its folder is its `/tmp`.
    var scratch: String?
    if case .inside(.netns, let directory) = BenchIsolation.current { scratch = directory }
    let folder = try SeaweedFolder(in: scratch)
    let own = scratch == nil ? folder.path : "/tmp"
    do {
      var command = [program]
      if scratch != nil {
        command =
          try [SystemTool.unshare.path(), "--mount", "--", SystemTool.sh.path()]
          + NamespaceScripts.privateTemporary.shellArguments([folder.path, program])
      }
      _ = try folder.write(
        """
        {"identities":[{"name":"mobula","credentials":[{"accessKey":"\(accessKey)","secretKey":"\(secretKey)"}],\
        "actions":["Admin","Read","Write","List","Tagging"]}]}
        """, to: "s3.json")
      var options: [String] = []
      if let iam {
        _ = try folder.write(try iam.json(), to: "iam.json")
        options.append("-s3.iam.config=\(own)/iam.json")
      }
      let log = try folder.openLog()
      // A session of its own: Ctrl-C ends it through `stop` or the guard, after those who use it.
      server = try ChildProcess.spawn(
        command[0],
        command.dropFirst() + [
          "-logtostderr=true", "server", "-dir=\(own)/data", "-ip=\(address)", "-ip.bind=\(address)",
          "-master.telemetry=false", "-master.port=\(ports.master)", "-master.electionTimeout=1s",
          "-master.volumeSizeLimitMB=1024", "-volume.port=\(ports.volume)", "-volume.max=200", "-filer",
          "-filer.port=\(ports.filer)", "-s3", "-s3.port=\(ports.s3)", "-s3.port.iceberg=0", "-s3.port.lance=0",
          "-s3.config=\(own)/s3.json", "-metricsIp=\(address)", "-metricsPort=\(ports.metrics)",
        ] + options,
        // Nothing else of ours: it would take AWS_ACCESS_KEY_ID for one more identity.
        environment: ["PATH": "/usr/bin:/bin", "HOME": own, "GOMEMLIMIT": "400MiB", Self.mark: folder.path],
        output: .descriptor(log.rawValue), errors: .descriptor(log.rawValue), newSession: true)
    } catch {
      folder.remove()
      throw error
    }
    self.folder = folder
    sockets = ports.sockets
    do {
      var ends: [Int32] = [0, 0]
      try systemCall("A socket pair can't be made") {
        socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
      }
      let reading = OwnedDescriptor(owning: ends[0])
      lifeline = SharedDescriptor(OwnedDescriptor(owning: ends[1]))
      watchdog = try Self.startGuard(server.pid, folder: folder.path, sockets: sockets, lifeline: reading)
    } catch {
      server.signal(SIGKILL)
      folder.remove()
      throw error
    }
  }

  /// How the server ended; `nil` while it runs.
  var exit: ChildProcess.Exit? { server.exit }

  func endOfLog() -> String { folder.endOfLog() }

  func stop() async {
    // First the guard: it must not act on a process id that is free again.
    watchdog.signal(SIGKILL)
    _ = await watchdog.waitForExit()
    // It takes SIGTERM for a wish and 15 s over it.
    server.signal(SIGKILL)
    _ = await server.waitForExit()
    folder.remove()
    for socket in sockets { unlink(socket) }
  }

  private static func startGuard(
    _ pid: Int32, folder: String, sockets: [String], lifeline: borrowing OwnedDescriptor
  ) throws(MobulaError) -> ChildProcess {
    // The folder's name in the environment makes sure that the process id is still the server's.
    let script = """
      is_server() { grep -aqF "$2" "/proc/$1/environ" 2>/dev/null; }
      read -r line
      while is_server "$1" "$2"; do kill -9 "$1"; sleep 0.05; done
      shift
      rm -rf "$@"
      """
    return try ChildProcess.spawn(
      "/bin/sh", ["-c", script, "sh", "\(pid)", folder] + sockets, input: .descriptor(lifeline.rawValue), output: .null,
      errors: .null, newSession: true)
  }
}
