internal import Glibc
internal import MobulaCore
internal import MobulaWire
internal import Synchronization

/// The server's process, its folder, and the guard that ends both when this process goes.
final class SeaweedProcess: Sendable {
  /// Names the folder in the server's environment.
  private static let mark = "MOBULA_SEAWEED_FOLDER"

  private struct Running {
    var server: ChildProcess
    var watchdog: ChildProcess
    /// The end of a socket pair that only this process holds: the guard acts when it is closed, at the
    /// latest with this process.
    var lifeline: SharedDescriptor
  }

  let folder: SeaweedFolder
  private let command: [String]
  private let home: String
  private let sockets: [String]
  private let running: Mutex<Running>

  var server: ChildProcess { running.withLock { $0.server } }
  var watchdog: ChildProcess { running.withLock { $0.watchdog } }

  init(
    program: String, address: String, ports: SeaweedPorts, accessKey: String, secretKey: String,
    iam: SeaweedIAM? = nil, tls: CertificateFolder? = nil
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
      if let iam {
        _ = try folder.write(try iam.json(), to: "iam.json")
      }
      command += [
        "-logtostderr=true", "server", "-dir=\(own)/data", "-ip=\(address)", "-ip.bind=\(address)",
        "-master.telemetry=false", "-master.port=\(ports.master)", "-master.electionTimeout=1s",
        "-master.volumeSizeLimitMB=1024", "-volume.port=\(ports.volume)", "-volume.max=200", "-filer",
        "-filer.port=\(ports.filer)", "-s3", "-s3.port=\(ports.s3)", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-s3.config=\(own)/s3.json", "-metricsIp=\(address)", "-metricsPort=\(ports.metrics)",
      ]
      if iam != nil { command.append("-s3.iam.config=\(own)/iam.json") }
      if let tls { command += ["-s3.cert.file=\(tls.certificate)", "-s3.key.file=\(tls.key)"] }
      self.folder = folder
      self.command = command
      home = own
      sockets = ports.sockets
      running = Mutex(try Self.start(command, home: own, folder: folder, sockets: ports.sockets))
    } catch {
      folder.remove()
      throw error
    }
  }

  /// Starts the server and its guard.
  private static func start(
    _ command: [String], home: String, folder: SeaweedFolder, sockets: [String]
  ) throws(MobulaError) -> Running {
    let log = try folder.openLog()
    // A session of its own: Ctrl-C ends it through `stop` or the guard, after those who use it.
    let server = try ChildProcess.spawn(
      command[0], Array(command.dropFirst()),
      // Nothing else of ours: it would take AWS_ACCESS_KEY_ID for one more identity.
      environment: ["PATH": "/usr/bin:/bin", "HOME": home, "GOMEMLIMIT": "400MiB", Self.mark: folder.path],
      output: .descriptor(log.rawValue), errors: .descriptor(log.rawValue), newSession: true)
    do {
      var ends: [Int32] = [0, 0]
      try systemCall("A socket pair can't be made") {
        socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
      }
      let reading = OwnedDescriptor(owning: ends[0])
      let lifeline = SharedDescriptor(OwnedDescriptor(owning: ends[1]))
      let watchdog = try Self.startGuard(server.pid, folder: folder.path, sockets: sockets, lifeline: reading)
      return Running(server: server, watchdog: watchdog, lifeline: lifeline)
    } catch {
      server.signal(SIGKILL)
      throw error
    }
  }

  /// Kills the server, whose data and ports stay: for `startAgain`.
  func kill() async {
    // First the guard, which would remove the folder; and it must not act on a process id that is free again.
    watchdog.signal(SIGKILL)
    _ = await watchdog.waitForExit()
    // It takes SIGTERM for a wish and 15 s over it.
    server.signal(SIGKILL)
    _ = await server.waitForExit()
    for socket in sockets { unlink(socket) }
  }

  /// Starts it with the data and the ports that it had.
  func startAgain() throws(MobulaError) {
    let started = try Self.start(command, home: home, folder: folder, sockets: sockets)
    running.withLock { $0 = started }
  }

  /// How the server ended; `nil` while it runs.
  var exit: ChildProcess.Exit? { server.exit }

  func endOfLog() -> String { folder.endOfLog() }

  func stop() async {
    await kill()
    folder.remove()
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
