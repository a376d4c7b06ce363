internal import Glibc
internal import MobulaCore

/// The server's process, its folder, and the guard that ends both when this process goes.
final class SeaweedProcess: Sendable {
  let folder: SeaweedFolder
  let server: ChildProcess
  let watchdog: ChildProcess
  /// The end of a socket pair that only this process holds: the guard acts when it is closed, at the
  /// latest with this process.
  private let lifeline: SharedDescriptor

  init(
    program: String, address: String, ports: SeaweedPorts, accessKey: String, secretKey: String
  ) throws(MobulaError) {
    SeaweedSockets.removeStale()
    let folder = try SeaweedFolder()
    do {
      let identities = try folder.write(
        """
        {"identities":[{"name":"mobula","credentials":[{"accessKey":"\(accessKey)","secretKey":"\(secretKey)"}],\
        "actions":["Admin","Read","Write","List","Tagging"]}]}
        """, to: "s3.json")
      let log = try folder.openLog()
      // A session of its own: Ctrl-C ends it through `stop` or the guard, after those who use it.
      server = try ChildProcess.spawn(
        program,
        [
          "-logtostderr=true", "server", "-dir=\(folder.data)", "-ip=\(address)", "-ip.bind=\(address)",
          "-master.telemetry=false", "-master.port=\(ports.master)", "-master.electionTimeout=1s",
          "-master.volumeSizeLimitMB=1024", "-volume.port=\(ports.volume)", "-volume.max=200", "-filer",
          "-filer.port=\(ports.filer)", "-s3", "-s3.port=\(ports.s3)", "-s3.port.iceberg=0", "-s3.port.lance=0",
          "-s3.config=\(identities)", "-metricsIp=\(address)", "-metricsPort=\(ports.metrics)",
        ],
        // Nothing else of ours: it would take AWS_ACCESS_KEY_ID for one more identity.
        environment: ["PATH": "/usr/bin:/bin", "HOME": folder.path, "GOMEMLIMIT": "400MiB"],
        output: .descriptor(log.rawValue), errors: .descriptor(log.rawValue), newSession: true)
    } catch {
      folder.remove()
      throw error
    }
    self.folder = folder
    do {
      var ends: [Int32] = [0, 0]
      try systemCall("A socket pair can't be made") {
        socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
      }
      let reading = OwnedDescriptor(owning: ends[0])
      lifeline = SharedDescriptor(OwnedDescriptor(owning: ends[1]))
      watchdog = try Self.startGuard(server.pid, folder: folder.path, lifeline: reading)
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
    SeaweedSockets.removeStale()
    folder.remove()
  }

  private static func startGuard(
    _ pid: Int32, folder: String, lifeline: borrowing OwnedDescriptor
  ) throws(MobulaError) -> ChildProcess {
    // The folder's name in the arguments makes sure that the process id is still the server's.
    let script = """
      is_server() { grep -aqF "$2" "/proc/$1/cmdline" 2>/dev/null; }
      read -r line
      while is_server "$1" "$2"; do kill -9 "$1"; sleep 0.05; done
      rm -rf "$2"
      """
    return try ChildProcess.spawn(
      "/bin/sh", ["-c", script, "sh", "\(pid)", folder], input: .descriptor(lifeline.rawValue), output: .null,
      errors: .null, newSession: true)
  }
}
