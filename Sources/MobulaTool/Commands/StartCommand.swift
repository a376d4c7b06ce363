import ArgumentParser
import Glibc
import Logging
import Mobula
import MobulaCore
import MobulaJournal
import MobulaS3
import MobulaStore
import MobulaWire

struct StartCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "start",
    abstract: "Start a cluster's head on this machine, or let this machine join a cluster.",
    discussion: """
      Examples:
        mobula start --head
        mobula start --head --listen 10.0.0.1 --capacity 64GB
        mobula start --address 10.0.0.1:7600 --token-file token --resources worker_pod_b=3,GPU=1
        mobula start --address 10.0.0.1:7600 --token-file token --tls certificates
        mobula start --address 10.0.0.1:7600 --token-file token --pod b:worker_pod_b=3 --pod c:worker_pod_c=3
        mobula start --address 10.0.0.1:7600 --token-file token --label zone=eu-1 --send-limit 500mbit
        mobula start --head --spill /mnt/nvme --spill s3://scratch/mobula --s3-endpoint http://10.0.0.9:8333
      """)

  static let defaultPort = 7600

  @Flag(help: "Run the head here: the control plane of a new cluster.")
  var head = false
  @Option(help: "Join the cluster whose head listens at HOST:PORT.")
  var address: String?
  @Option(help: "The head's port.")
  var port = StartCommand.defaultPort
  @Option(
    help:
      "The address that others reach this machine at. Default: 127.0.0.1 with --head, else the one that leads to the head."
  )
  var listen: String?
  @Option(help: "What the pod of this host has beside CPUs and memory, as NAME=AMOUNT,….")
  var resources: String?
  @Option(help: "CPUs of the pod. Default: this machine's.")
  var cpus: Double?
  @Option(
    help: "Memory that the pod's work may ask for, as in 4GB. Default: this machine's, less the store's capacity.")
  var memory: String?
  @Option(help: "The most that the store may hold, as in 64GB. Default: 30% of this machine's memory.")
  var capacity: String?
  @Option(
    help: ArgumentHelp(
      "A folder, or s3://BUCKET/PREFIX, for objects that have no room in memory; folders may be repeated, and are used before S3, \"none\" for none. Default: a folder of this host's in /var/tmp.",
      valueName: "place"))
  var spill: [String] = []
  @Option(
    help: "The S3 of --spill, as http://HOST:PORT. Default: $AWS_ENDPOINT_URL, else AWS. Credentials are the host's.")
  var s3Endpoint: String?
  @Option(help: "The most free memory that the store keeps warm for the next objects, in percent of its capacity.")
  var warm = 50.0
  @Option(help: "Memory that the store reserves ahead of who puts, in percent of its capacity.")
  var spare = 2.0
  @Option(help: "A pod of its own, as NAME:RESOURCES; may be repeated. Default: one pod that is the whole host.")
  var pod: [String] = []
  @Option(help: "The most that this host sends to other hosts, as in 500mbit, 1.2gbit or 100MB/s. Default: no limit.")
  var sendLimit: String?
  @Option(help: "The most that this host receives from other hosts and from S3. Default: no limit.")
  var receiveLimit: String?
  @Option(
    help: ArgumentHelp(
      "What tells this host from others, as in zone=eu-1; may be repeated. Hosts of the same zone prefer each other.",
      valueName: "key=value"))
  var label: [String] = []
  @Option(help: "This host's name. Default: the machine's.")
  var name: String?
  @Option(help: "A file with the cluster's token. Default: $MOBULA_TOKEN, or the one made by the first start.")
  var tokenFile: String?
  @Option(
    help: ArgumentHelp(
      "Use TLS among hosts, with ca.pem, cert.pem and key.pem of this folder (`mobula certificates`); all hosts of a cluster alike; \"none\" for none. Default: $MOBULA_TLS, else as this host was started before.",
      valueName: "folder"))
  var tls: String?
  @OptionGroup var state: StateOption
  @Flag(help: "Stay in the foreground; Ctrl-C stops.")
  var foreground = false
  @Flag(help: .hidden) var lifeline = false
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if head == (address != nil) {
      throw ValidationError("Give either --head, or --address HOST:PORT of the cluster to join.")
    }
    if let address, case .tcp? = Endpoint(address) {
    } else if address != nil {
      throw ValidationError("\"\(address!)\" is no HOST:PORT.")
    }
    if !(0...65535 ~= port) { throw ValidationError("--port takes a number from 0 to 65535.") }
    if !(0...100 ~= warm) { throw ValidationError("--warm takes a percentage from 0 to 100.") }
    if !(0...100 ~= spare) { throw ValidationError("--spare takes a percentage from 0 to 100.") }
    for (limit, flag) in [(sendLimit, "--send-limit"), (receiveLimit, "--receive-limit")] {
      if let limit, LinkRate(limit) == nil {
        throw ValidationError("\(flag) takes a rate, as in 500mbit, 1.2gbit or 100MB/s.")
      }
    }
    _ = try labels(label, "--label")
    if spill.contains("none") && spill.count > 1 { throw ValidationError("Give --spill none, or places, not both.") }
    try validateS3()
    if !pod.isEmpty && resources != nil {
      throw ValidationError("Give --resources for the one pod of this host, or --pod for each, not both.")
    }
  }

  private func validateS3() throws {
    let places = spill.filter { StartConfiguration.isS3($0) }
    if places.count > 1 {
      throw ValidationError("Give --spill s3://BUCKET/PREFIX once: a host spills to one place in S3.")
    }
    do {
      for place in places { _ = try S3URL(place) }
      if let s3Endpoint { _ = try S3Endpoint(s3Endpoint) }
    } catch {
      throw ValidationError("\(error)")
    }
    if s3Endpoint != nil && places.isEmpty {
      throw ValidationError("--s3-endpoint is for --spill s3://BUCKET/PREFIX: give both, or neither.")
    }
  }

  func run() async throws {
    let directory = directory.runDirectory
    try directory.create()
    if let running = directory.supervisor() {
      throw MobulaError(
        .alreadyExists, "A host runs in \(directory.path) already (process \(running)): `mobula stop` stops it.")
    }
    let state = state.chosen(self.directory)
    try state.create()
    try prepareToken(directory, state)
    try prepareTLS(directory, state)
    // From here on the token is in its file, and in no child's environment.
    unsetenv("MOBULA_TOKEN")
    unsetenv("MOBULA_TLS")
    // What can't be used is said here, not by a process that nobody watches.
    let journaled = head ? try await checkJournal(state) : nil
    let configuration = try makeConfiguration(directory, state, cluster: journaled)
    let known = try configuration.cluster ?? state.identity()?.cluster
    try state.write(StateDirectory.Identity(cluster: known, host: configuration.host))
    // In the foreground a host waits for its head, as hosts that are started together must.
    if !head, !foreground { try await checkHead(configuration, directory) }
    try directory.write(configuration)
    // Of the cluster that was joined before, perhaps another.
    unlink(HostSockets.cluster(in: directory.path))
    if foreground {
      Log.bootstrap()
      if lifeline {
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
      return try await Supervisor(
        directory: directory, configuration: configuration, log: Logger(label: "supervisor")
      ).run()
    }
    try await startDetached(directory, state)
  }

  /// The token lies in the state directory, and a copy where the processes of this host look for it.
  private func prepareToken(_ directory: RunDirectory, _ state: StateDirectory) throws {
    let token: ClusterToken
    if let tokenFile {
      token = try ClusterToken.read(file: tokenFile)
    } else if let text = currentEnvironment()["MOBULA_TOKEN"] {
      token = try ClusterToken(text)
    } else if let kept = [state.tokenFile, directory.tokenFile].first(where: { (file: String) in access(file, F_OK) == 0
    }) {
      token = try ClusterToken.read(file: kept)
    } else if head {
      token = ClusterToken.random()
    } else {
      throw MobulaError(
        .unauthenticated,
        "A token is needed to join a cluster: copy the file `token` that `mobula start --head` made, and give it with --token-file."
      )
    }
    try state.write(token)
    unlink(directory.tokenFile)
    try token.write(file: directory.tokenFile)
  }

  /// Keeps the certificates in the state directory, and a copy where every process of this host finds it, as the token.
  private func prepareTLS(_ directory: RunDirectory, _ state: StateDirectory) throws {
    let copy = ClusterOptions.certificates(in: directory.path)
    guard let given = tls ?? currentEnvironment()["MOBULA_TLS"], !given.isEmpty else {
      // As it was, also after a reboot has taken the copy.
      if access(state.certificates.path, F_OK) == 0 { return try state.certificates.copy(to: copy) }
      return copy.removeCopy()
    }
    guard given != "none" else {
      state.certificates.removeCopy()
      return copy.removeCopy()
    }
    let folder = CertificateFolder(given)
    // Fails before anything is started.
    _ = try ClusterTLS(folder)
    try folder.copy(to: state.certificates)
    try folder.copy(to: copy)
  }

  /// - Returns: the cluster that the journal is of, if there is one.
  private func checkJournal(_ state: StateDirectory) async throws -> ClusterID? {
    let journal = try SQLiteJournal(path: state.journalFile)
    let cluster = try await journal.load().cluster
    await journal.close()
    return cluster
  }

  private func makeConfiguration(
    _ directory: RunDirectory, _ state: StateDirectory, cluster journaled: ClusterID?
  ) throws -> StartConfiguration {
    let before = try? directory.readConfiguration()
    let identity = try state.identity()
    let machine = Machine.memory()
    let capacity = try parse(self.capacity, "--capacity") ?? ByteCount(machine.bytes / 10 * 3)
    let memory = try parse(self.memory, "--memory") ?? ByteCount(max(0, machine.bytes - capacity.bytes))
    let name = name ?? Machine.name()
    var resources = try Resources(parsing: self.resources ?? "")
    resources[Resources.cpu] = ResourceAmount(cpus ?? Double(Machine.cpus()))
    resources[Resources.memory] = ResourceAmount(memory.bytes)

    var pods: [StartConfiguration.PodEntry] = []
    for text in pod {
      let sides = text.split(separator: ":", maxSplits: 1)
      guard sides.count == 2 else {
        throw MobulaError(
          .invalidArgument, "\"\(text)\" is no pod: write --pod NAME:RESOURCES, as in --pod b:worker_pod_b=3.")
      }
      var own = try Resources(parsing: String(sides[1]))
      if own[Resources.cpu] == .zero { own[Resources.cpu] = resources[Resources.cpu] }
      if own[Resources.memory] == .zero { own[Resources.memory] = resources[Resources.memory] }
      pods.append(.init(pod: .random(), name: String(sides[0]), resources: own))
    }
    if pods.isEmpty { pods = [.init(pod: .random(), name: name, resources: resources)] }
    if Set(pods.map { Name($0.name) }).count < pods.count {
      throw MobulaError(.invalidArgument, "Two pods have the same name: give each --pod its own.")
    }

    let listen: String
    let head: Endpoint
    if let address, let endpoint = Endpoint(address) {
      head = endpoint
      listen = try self.listen ?? Machine.address(towards: endpoint)
    } else {
      listen = self.listen ?? "127.0.0.1"
      head = .tcp(host: listen, port: port)
    }
    let host = identity?.host ?? before?.host ?? .random()
    let cluster = journaled ?? identity?.cluster ?? before?.cluster
    let spill =
      self.spill == ["none"] ? [] : self.spill.isEmpty ? ["/var/tmp/mobula-\(getuid())-\(host.short)"] : self.spill
    // What nobody named is no reason not to start; the host says it in its log.
    for place in self.spill where place != "none" && !StartConfiguration.isS3(place) {
      try SpillFolders.check(absolute(place))
    }
    return StartConfiguration(
      isHead: self.head, head: head, cluster: self.head ? cluster ?? .random() : nil, host: host,
      name: name, address: listen, capacity: capacity,
      spill: spill.map { StartConfiguration.isS3($0) ? $0 : absolute($0) }, warm: warm / 100,
      spare: spare / 100, pods: pods, labels: try labels(label, "--label"),
      sendLimit: sendLimit.flatMap { LinkRate($0) },
      receiveLimit: receiveLimit.flatMap { LinkRate($0) }, spillEndpoint: s3Endpoint, state: state.path)
  }

  /// Asks the head once, so that a wrong address or token is said at once.
  private func checkHead(_ configuration: StartConfiguration, _ directory: RunDirectory) async throws {
    let connection = try await RPCConnection.connect(
      to: configuration.head, token: try directory.token(), hello: Hello(role: .tool, name: configuration.name),
      tls: try directory.tls(), deadline: .seconds(5))
    await connection.close()
  }

  private func parse(_ text: String?, _ flag: String) throws -> ByteCount? {
    guard let text else { return nil }
    guard let count = ByteCount(text) else {
      throw MobulaError(.invalidArgument, "\"\(text)\" is no size for \(flag): write it as 4GB or 512MB.")
    }
    return count
  }

  private func startDetached(_ directory: RunDirectory, _ state: StateDirectory) async throws {
    let log = OwnedDescriptor(
      owning: try systemCall("\(directory.logFile) can't be opened") {
        open(directory.logFile, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
      })
    // The token is in its file by now.
    var environment = currentEnvironment()
    environment["MOBULA_TOKEN"] = nil
    let supervisor = try ChildProcess.spawn(
      try Executable.path(), ["supervise", "--directory", directory.path], environment: environment,
      output: .descriptor(log.rawValue),
      errors: .descriptor(log.rawValue), newSession: true)
    let deadline = ContinuousClock.now + .seconds(20)
    let configuration = try directory.readConfiguration()
    var last: (any Error)?
    while ContinuousClock.now < deadline {
      if let exit = supervisor.exit {
        throw MobulaError(.unavailable, "The host did not start (\(exit)): \(lastError(in: directory.logFile))")
      }
      do {
        if let cluster = try await readyCluster(configuration, directory) {
          try state.write(StateDirectory.Identity(cluster: cluster, host: configuration.host))
          return announce(configuration, directory)
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
  private func readyCluster(
    _ configuration: StartConfiguration, _ directory: RunDirectory
  ) async throws -> ClusterID? {
    guard access(directory.path + "/host.sock", F_OK) == 0 else { return nil }
    let cluster = try await Cluster.connectTool(ClusterOptions(directory: directory.path))
    let status = try? await cluster.status()
    await cluster.close()
    let registered = Set(status?.pods.map(\.pod) ?? [])
    return configuration.pods.allSatisfy { registered.contains($0.pod) } ? status?.cluster : nil
  }

  private func lastError(in file: String) -> String {
    let lines = (try? readText(file))?.split(separator: "\n") ?? []
    return lines.first { $0.hasPrefix("Error: ") }.map { String($0.dropFirst(7)) } ?? "see \(file)."
  }

  private func announce(_ configuration: StartConfiguration, _ directory: RunDirectory) {
    let pods = configuration.pods.map { "  pod \($0.name): \($0.resources)" }.joined(separator: "\n")
    print("Host \(configuration.name) runs, with a store of \(configuration.capacity).\n\(pods)")
    if configuration.isHead {
      print("The head listens at \(configuration.head).")
      if configuration.address == "127.0.0.1" {
        print("Only this machine reaches it: start with --listen ADDRESS for a cluster of several.")
      } else {
        print("Join from another machine: copy \(directory.tokenFile) there, then")
        let tls = tls == nil ? "" : " --tls FOLDER"
        print("  mobula start --address \(configuration.head) --token-file token\(tls)")
      }
    }
  }
}

/// Labels as they are given to an option that may be repeated.
///
/// - Throws: `ValidationError` for what is none, and for two with the same key.
func labels(_ texts: [String], _ flag: String) throws -> [Name: Name] {
  var labels: [Name: Name] = [:]
  for text in texts {
    guard let label = HostLabel(text) else {
      throw ValidationError(
        "\(flag) takes KEY=VALUE of letters, digits and . _ - /, as in zone=eu-1; \"\(text)\" is none.")
    }
    guard labels.updateValue(label.value, forKey: label.key) == nil else {
      throw ValidationError("\(flag) \(label.key) is given twice: a host has one value for each key.")
    }
  }
  return labels
}
