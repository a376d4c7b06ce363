import ArgumentParser
import Glibc
import Logging
import Mobula
import MobulaCore
import MobulaJournal
import MobulaS3
import MobulaStore
import MobulaSupervisor
import MobulaWire

struct StartCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "start", abstract: "Start a cluster's head on this machine, or let this machine join a cluster.",
    discussion: """
      Examples:
        mobula start --head
        mobula start --head --listen 10.0.0.1 --capacity 64GB
        mobula start --head --listen 0.0.0.0 --advertise head.example --port 0
        mobula start --head --spill /mnt/nvme --spill s3://scratch/mobula
        mobula start --address 10.0.0.1:7600 --token-file token
        mobula start --address 10.0.0.1:7600 --token-file token \\
          --resources worker_pod_b=3,GPU=1 --tls certificates
        mobula start --address 10.0.0.1:7600 --token-file token \\
          --pod b:worker_pod_b=3 --pod c:worker_pod_c=3 --label zone=eu-1
      """)

  static let defaultPort = 7600

  @Flag(help: "Run the head here: the control plane of a new cluster.") var head = false
  @Option(help: "Join the cluster whose head listens at HOST:PORT.") var address: String?
  @Option(help: "The head's port; 0 for a free one, which is printed.") var port = StartCommand.defaultPort
  @Option(
    help:
      "The address to listen at, which others are told too. Default: 127.0.0.1 with --head, else the one that leads to the head."
  ) var listen: String?
  @Option(
    help:
      "The name or address that others are told instead: with --listen 0.0.0.0 or ::, or behind address translation.")
  var advertise: String?
  @Option(help: "What the pod of this host has beside CPUs and memory, as NAME=AMOUNT,….") var resources: String?
  @Option(help: "CPUs of this host's pods. Default: those that this process may use, by affinity and cgroup.") var cpus:
    String?
  @Option(
    help:
      "Memory that the pods' work may ask for, as in 4GB. Default: this machine's, or its cgroup's, less the store's capacity."
  ) var memory: String?
  @Option(
    help: "The most that the store may hold, as in 64GB. Default: 30% of this machine's, or its cgroup's, memory.")
  var capacity: String?
  @Option(
    help: ArgumentHelp(
      "A folder, or s3://BUCKET/PREFIX, for objects that have no room in memory; folders may be repeated, and are used before S3, \"none\" for none. Default: a folder of this host's in /var/tmp.",
      valueName: "place")) var spill: [String] = []
  @Option(
    help: "The S3 of --spill, as http://HOST:PORT. Default: $AWS_ENDPOINT_URL, else AWS. Credentials are the host's.")
  var s3Endpoint: String?
  @Option(help: "The most free memory that the store keeps warm for the next objects, in percent of its capacity.")
  var warm = 50.0
  @Option(help: "Memory that the store reserves ahead of who puts, in percent of its capacity.") var spare = 2.0
  @Option(
    help:
      "A pod of its own, as NAME:RESOURCES; may be repeated. Pods share what CPUs and memory they don't name. Default: one pod that is the whole host."
  ) var pod: [String] = []
  @Option(help: "The most that this host sends to other hosts, as in 500mbit, 1.2gbit or 100MB/s. Default: no limit.")
  var sendLimit: String?
  @Option(help: "The most that this host receives from other hosts and from S3. Default: no limit.") var receiveLimit:
    String?
  @Option(
    help: ArgumentHelp(
      "What tells this host from others, as in zone=eu-1; may be repeated. Hosts of the same zone prefer each other.",
      valueName: "key=value")) var label: [String] = []
  @Option(help: "This host's name. Default: the machine's.") var name: String?
  @Option(help: "A file with the cluster's token. Default: $MOBULA_TOKEN, or the one made by the first start.")
  var tokenFile: String?
  @Option(
    help: ArgumentHelp(
      "Use TLS among hosts, with ca.pem, cert.pem and key.pem of this folder (`mobula certificates`); all hosts of a cluster alike; \"none\" for none. Default: $MOBULA_TLS, else as this host was started before.",
      valueName: "folder")) var tls: String?
  @OptionGroup var state: StateOption
  @Flag(help: "Stay in the foreground; Ctrl-C stops.") var foreground = false
  @Option(
    help: ArgumentHelp(
      "When host and pods are up, write one line of JSON (head, host, name, directory) to this descriptor, and close it.",
      valueName: "descriptor")) var readyFd: CInt?
  @Flag(help: .hidden) var lifeline = false
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if head == (address != nil) {
      throw ValidationError("Give either --head, or --address HOST:PORT of the cluster to join.")
    }
    if let address {
      guard case .tcp(_, let port)? = Endpoint(address) else {
        throw ValidationError("\"\(address)\" is no HOST:PORT for --address: write it as 10.0.0.1:7600 or [::1]:7600.")
      }
      if port == 0 {
        throw ValidationError("--address needs the head's port, which is not 0: `mobula start --head` printed it.")
      }
    }
    if !(0...65535 ~= port) { throw ValidationError("--port takes a number from 0 to 65535.") }
    if !(0...100 ~= warm) { throw ValidationError("--warm takes a percentage from 0 to 100.") }
    if !(0...100 ~= spare) { throw ValidationError("--spare takes a percentage from 0 to 100.") }
    for (limit, flag) in [(sendLimit, "--send-limit"), (receiveLimit, "--receive-limit")] {
      if let limit, LinkRate(limit) == nil {
        throw ValidationError("\(flag) takes a rate, as in 500mbit, 1.2gbit or 100MB/s.")
      }
    }
    if let advertise {
      guard Endpoint.isHost(advertise), !advertise.contains("%"), !LocalAddress.isWildcard(advertise) else {
        throw ValidationError("\"\(advertise)\" is no name or address that others could reach, for --advertise.")
      }
    }
    if let readyFd {
      let flags = fcntl(readyFd, F_GETFL)
      guard flags >= 0, flags & O_ACCMODE != O_RDONLY else {
        throw ValidationError("--ready-fd \(readyFd): no such descriptor is open for writing.")
      }
    }
    for (text, flag) in [(tokenFile, "--token-file"), (tls, "--tls")] where text == "" {
      throw ValidationError("\(flag) takes a path, which can't be empty.")
    }
    _ = try labels(label, "--label")
    _ = try makeSizes()
    _ = try makePods(makeSizes(), hostName: checkedName())
    if spill.contains("none") && spill.count > 1 { throw ValidationError("Give --spill none, or places, not both.") }
    if spill.contains("") {
      throw ValidationError("--spill takes a folder, s3://BUCKET/PREFIX or none, not an empty text.")
    }
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
    } catch { throw ValidationError("\(error)") }
    if s3Endpoint != nil && places.isEmpty {
      throw ValidationError("--s3-endpoint is for --spill s3://BUCKET/PREFIX: give both, or neither.")
    }
  }

  func run() async throws {
    // Whatever this starts must not keep it open.
    if let readyFd { _ = fcntl(readyFd, F_SETFD, FD_CLOEXEC) }
    try Log.checkLevel()
    try asUsage { try S3Configuration.checkTrustedRoots() }
    let sizes = try makeSizes()
    let warning = try sizes.check()
    let directory = directory.runDirectory
    // Before its own port is found to be taken.
    try checkNobodyRuns(in: directory)
    let addresses = try asUsage { try makeAddresses() }
    try directory.create()
    // As long as this one is at it, no other writes its files: not before it has found that nobody runs.
    let beginning = try directory.lockWhileStarting()
    defer { withExtendedLifetime(beginning) {} }
    try checkNobodyRuns(in: directory)
    try checkProcessLimits(sizes.capacity)
    let state = state.chosen(self.directory)
    try state.create()
    try state.checkIsFree()
    let former = [state.tokenFile, directory.tokenFile].lazy.compactMap { try? ClusterToken.read(file: $0) }.first
    try prepareToken(directory, state)
    try prepareTLS(directory, state)
    // From here on the token is in its file, and in no child's environment.
    unsetenv("MOBULA_TOKEN")
    unsetenv("MOBULA_TLS")
    // What can't be used is said here, not by a process that nobody watches.
    let journaled = head ? try await checkJournal(state) : nil
    let configuration = try makeConfiguration(directory, state, sizes, addresses, cluster: journaled)
    let before = try state.identity()
    try state.write(
      StateDirectory.Identity(
        cluster: configuration.cluster ?? before?.cluster, host: configuration.host,
        hadHead: head || before?.hadHead == true))
    // In the foreground a host waits for its head, as hosts that are started together must.
    if !head, !foreground {
      do { try await checkHead(configuration, directory) } catch {
        // A token that was of no use here is not for the next start.
        for file in [state.tokenFile, directory.tokenFile] { unlink(file) }
        if let former { try state.write(former) }
        throw error
      }
    }
    try directory.write(configuration)
    // Of the cluster that was joined before, perhaps another.
    unlink(HostPaths.cluster(in: directory.path))
    if let warning { Log.write(STDERR_FILENO, "Warning: \(warning)\n") }
    let starter = HostStarter(
      directory: directory, state: state, configuration: configuration, readyDescriptor: readyFd)
    let usesTLS = access(HostPaths.certificates(in: directory.path), F_OK) == 0
    if foreground { return try await starter.runInForeground(endsWithInput: lifeline, tls: usesTLS) }
    Interruption.begin()
    try await starter.startDetached()
    starter.announce(tls: usesTLS)
  }

  private func checkNobodyRuns(in directory: RunDirectory) throws(MobulaError) {
    guard let running = directory.supervisor() else { return }
    throw MobulaError(
      .alreadyExists,
      "A host runs in \(directory.path) already (process \(running)): `mobula stop --directory \(directory.path)` stops it."
    )
  }

  /// The token lies in the state directory, and a copy where the processes of this host look for it.
  private func prepareToken(_ directory: RunDirectory, _ state: StateDirectory) throws {
    let token: ClusterToken
    if let tokenFile {
      token = try ClusterToken.read(file: tokenFile)
    } else if let text = currentEnvironment()["MOBULA_TOKEN"], !text.isEmpty {
      do {
        token = try ClusterToken(text)
      } catch {
        throw MobulaError(
          .invalidArgument, "$MOBULA_TOKEN is no cluster token: it has 16 to 1024 visible ASCII characters.")
      }
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
    if let role = try token.authority().role {
      throw MobulaError(
        .denied,
        "This is a \(role)'s token, and a host needs the cluster's: copy the file `token` of the head's machine.")
    }
    try state.write(token)
    unlink(directory.tokenFile)
    try token.write(file: directory.tokenFile)
  }

  /// Keeps the certificates in the state directory, and a copy where every process of this host finds it, as the token.
  private func prepareTLS(_ directory: RunDirectory, _ state: StateDirectory) throws {
    let copy = CertificateFolder(HostPaths.certificates(in: directory.path))
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
    try ClusterTLS(folder).checkItself()
    try folder.copy(to: state.certificates)
    try folder.copy(to: copy)
  }

  /// - Returns: the cluster that the journal is of, if there is one.
  private func checkJournal(_ state: StateDirectory) async throws -> ClusterID? {
    try SQLiteJournal.checkNotLost(state.journalFile, hadHead: state.identity()?.hadHead == true)
    let journal = try SQLiteJournal(path: state.journalFile)
    let cluster = try await journal.load().cluster
    await journal.close()
    return cluster
  }

  /// Asks the head once, so that a wrong address or token is said at once.
  private func checkHead(_ configuration: StartConfiguration, _ directory: RunDirectory) async throws {
    let connection = try await RPCConnection.connect(
      to: configuration.head, token: try directory.token(), hello: Hello(role: .tool, name: configuration.name),
      tls: try directory.tls(), deadline: .seconds(5))
    await connection.close()
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
