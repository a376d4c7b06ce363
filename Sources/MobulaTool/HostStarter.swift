import FoundationEssentials
import Glibc
import Logging
import Mobula
import MobulaCore
import MobulaStore
import MobulaSupervisor
import Synchronization

/// Starts a host that is configured, and says when it is up.
struct HostStarter {
  let directory: RunDirectory
  let state: StateDirectory
  let configuration: StartConfiguration
  /// Where a program waits for the line that says so.
  var readyDescriptor: CInt?

  private static let hasWarned = Atomic(false)

  /// What that line says.
  private struct Ready: Encodable {
    var head: String
    var host: String
    var name: String
    var directory: String
  }

  /// Runs it until a signal.
  ///
  /// - Parameters:
  ///   - endsWithInput: whether the end of standard input is such a signal.
  ///   - tls: whether it talks to others over TLS.
  func runInForeground(endsWithInput: Bool, tls: Bool) async throws {
    Log.bootstrap()
    if endsWithInput {
      // Whoever started this has the other end of standard input, and wants it no longer than it lives itself.
      detachThread(named: "lifeline") {
        var byte: UInt8 = 0
        while true {
          let count = read(0, &byte, 1)
          if count == 0 || count < 0 && currentErrno() != EINTR { break }
        }
        kill(getpid(), SIGTERM)
      }
    }
    let waiting = Task {
      let pause = readyDescriptor == nil ? 200 : 20
      while await (try? readyCluster()) ?? nil == nil { try await Task.sleep(for: .milliseconds(pause)) }
      // Standard output may be that of the program that started this, or wait for the line alone.
      if !endsWithInput, readyDescriptor != STDOUT_FILENO { announce(tls: tls) }
      try sayReady()
    }
    defer { waiting.cancel() }
    try await Supervisor(directory: directory, configuration: configuration, log: Logger(label: "supervisor")).run()
  }

  /// Starts it in a session of its own, and returns when it is up.
  ///
  /// - Throws: `MobulaError`: what its processes say when they can't run, `deadlineExceeded` after 20 s.
  func startDetached() async throws {
    let log = OwnedDescriptor(
      owning: try systemCall("\(directory.logFile) can't be opened") {
        open(directory.logFile, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
      })
    let supervisor = try ChildProcess.spawn(
      try Executable.path(), ["supervise", "--directory", directory.path], output: .descriptor(log.rawValue),
      errors: .descriptor(log.rawValue), newSession: true)
    // Ctrl-C before it is up: nothing is left running that nobody was told of.
    let pending = Interruption.whenEnding { supervisor.signal(SIGTERM) }
    defer { pending.isOver() }
    let deadline = ContinuousClock.now + .seconds(20)
    var last: (any Error)?
    while ContinuousClock.now < deadline {
      if let exit = supervisor.exit {
        throw MobulaError(.unavailable, "The host did not start (\(exit)): \(lastError(in: directory.logFile))")
      }
      do {
        if let cluster = try await readyCluster() {
          try state.write(
            StateDirectory.Identity(
              cluster: cluster, host: configuration.host, hadHead: state.identity()?.hadHead))
          return try sayReady()
        }
      } catch { last = error }
      try await Task.sleep(for: .milliseconds(20))
    }
    supervisor.signal(SIGTERM)
    for _ in 0..<400 where supervisor.exit == nil { try await Task.sleep(for: .milliseconds(20)) }
    supervisor.signal(SIGKILL)
    throw MobulaError(
      .deadlineExceeded,
      "The host was not ready within 20 seconds (\(last.map { "\($0)" } ?? "its pods did not register")): see \(directory.logFile)."
    )
  }

  /// The cluster, once the host answers and the head knows all its pods.
  private func readyCluster() async throws -> ClusterID? {
    guard access(HostPaths.host(in: directory.path), F_OK) == 0 else { return nil }
    let cluster = try await Cluster.connectTool(ClusterOptions(directory: directory.path))
    let status: ClusterStatus
    do { status = try await cluster.status() } catch {
      await cluster.close()
      throw error
    }
    await cluster.close()
    if status.hosts.contains(where: {
      $0.connected && $0.host != configuration.host && $0.name == Name(configuration.name)
    }),
      !Self.hasWarned.exchange(true, ordering: .relaxed)
    {
      Log.write(
        STDERR_FILENO,
        "Warning: Another host of the cluster is called \(configuration.name.printable), too: commands tell them apart by their ids alone.\n"
      )
    }
    let registered = Set(status.pods.map(\.pod))
    return configuration.pods.allSatisfy { registered.contains($0.pod) } ? status.cluster : nil
  }

  private func sayReady() throws {
    guard let readyDescriptor else { return }
    let ready = Ready(
      head: "\(configuration.told)", host: "\(configuration.host)", name: configuration.name, directory: directory.path)
    Log.write(readyDescriptor, try ExactJSON(isReadable: false).encode(ready) + "\n")
    if readyDescriptor > STDERR_FILENO { close(readyDescriptor) }
  }

  private func lastError(in file: String) -> String {
    let lines = (try? readText(file))?.split(separator: "\n") ?? []
    return lines.first { $0.hasPrefix("Error: ") }.map { String($0.dropFirst(7)) } ?? "see \(file)."
  }

  /// Prints what runs, and how others join where they can; at once, also into a file.
  func announce(tls: Bool) {
    defer { fflush(nil) }
    let pods = configuration.pods.map { "  pod \($0.name): \($0.resources)" }.joined(separator: "\n")
    print("Host \(configuration.name) runs, with a store of \(configuration.capacity).\n\(pods)")
    guard configuration.isHead else { return }
    print("The head listens at \(configuration.told).")
    if LocalAddress.isLoopback(configuration.address) {
      let isBoundHere = configuration.listen.map { LocalAddress.isLoopback($0) } ?? true
      let how = isBoundHere ? "--listen ADDRESS" : "an --advertise that others reach"
      print("Only this machine reaches it: start with \(how) for a cluster of several.")
      print("The cluster's token is in \(directory.tokenFile).")
    } else {
      print("Join from another machine: copy \(directory.tokenFile) there, then")
      print("  mobula start --address \(configuration.told) --token-file token\(tls ? " --tls FOLDER" : "")")
    }
  }
}
