import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaStore
import MobulaSupervisor

/// What a host's pods and its store have.
struct StartSizes {
  var cpus: Double
  var memory: ByteCount
  var capacity: ByteCount
  let shares: MemoryShares

  /// - Returns: a warning.
  /// - Throws: `MobulaError` (`invalidArgument`) for more than there is.
  func check() throws(MobulaError) -> String? { try shares.check(capacity) }
}

/// Where a host listens, and what it tells others.
struct StartAddresses {
  /// Where this host's own processes reach the head.
  var head: Endpoint
  /// What is bound.
  var listen: String
  /// What others are told.
  var address: String
}

extension StartCommand {
  /// - Throws: `ValidationError` for what is no number or size.
  func makeSizes() throws -> StartSizes {
    let (machine, source) = Machine.memory()
    let shares = MemoryShares(machine: machine, source: source)
    let capacity = try parse(capacity, "--capacity") ?? shares.defaultCapacity
    guard capacity >= .minimumStore else { throw ValidationError("--capacity takes 1MiB and more, as in 64GB.") }
    let memory = try parse(memory, "--memory") ?? shares.memory(beside: capacity)
    guard memory <= Resources.maximumMemory else {
      throw ValidationError("--memory takes at most \(Resources.maximumMemory.bytes / 1_000_000_000_000)TB.")
    }
    var cpus = Machine.cpus()
    if let text = self.cpus {
      guard let number = decimalNumber(text), number <= 1_000_000 else {
        throw ValidationError("--cpus takes a number from 0 to 1000000, as in 4 or 0.5; \"\(text)\" is none.")
      }
      cpus = number
    }
    return StartSizes(cpus: cpus, memory: memory, capacity: capacity, shares: shares)
  }

  private func parse(_ text: String?, _ flag: String) throws -> ByteCount? {
    guard let text else { return nil }
    guard let count = ByteCount(text) else {
      throw ValidationError("\"\(text)\" is no size for \(flag): write it as 4GB or 512MB.")
    }
    return count
  }

  /// The host's name, by which messages and `--pod` know it.
  /// - Parameter directory: where the host is to run; others on this machine have other names than it, if it is not
  ///   given one.
  func checkedName(in directory: RunDirectory? = nil) throws -> String {
    let name = name ?? directory.map { Self.freeName(in: $0) } ?? Machine.name()
    try check(name, "--name")
    return name
  }

  /// The machine's name; where another host of this user's has it, with a number, and the same one as before if it can.
  private static func freeName(in directory: RunDirectory) -> String {
    let own = Machine.name()
    let here = realpath(directory.path, nil).map { pointer in
      defer { free(pointer) }
      return String(cString: pointer)
    }
    let taken = Set(
      RunningSupervisor.all().filter { $0.directory != here ?? directory.path }.compactMap {
        (try? RunDirectory(path: $0.directory).readConfiguration()).map { Name($0.name) }
      })
    let before = (try? directory.readConfiguration())?.name
    let names = [before].compactMap { $0 }.filter {
      $0.hasPrefix(own + "-") && Int($0.dropFirst(own.utf8.count + 1)) != nil
    }
    return (names + [own]).first { !taken.contains(Name($0)) }
      ?? (2...).lazy.map { "\(own)-\($0)" }.first { !taken.contains(Name($0)) }!
  }

  private func check(_ name: String, _ flag: String) throws {
    guard 1...255 ~= name.utf8.count, !name.hasPrefix("-"), name.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
      throw ValidationError(
        "\(flag) takes a name of 1 to 255 bytes, without control characters or a - at its beginning.")
    }
  }

  /// The pods: those given with `--pod`, or one that is the whole host.
  ///
  /// What a pod does not say of CPUs and memory it shares with the others that don't.
  func makePods(_ sizes: StartSizes, hostName: String) throws -> [StartConfiguration.PodEntry] {
    var resources = try parse(resources ?? "", "--resources")
    if pod.isEmpty {
      if resources[Resources.cpu] == .zero || cpus != nil { resources[Resources.cpu] = ResourceAmount(sizes.cpus) }
      if resources[Resources.memory] == .zero || memory != nil {
        resources[Resources.memory] = ResourceAmount(sizes.memory.bytes)
      }
      return [.init(pod: .random(), name: Name(hostName), resources: resources)]
    }
    var pods: [StartConfiguration.PodEntry] = []
    for text in pod {
      // Bytes, since a mark behind a colon makes it another character to Swift.
      let sides = text.utf8.split(separator: UInt8(ascii: ":"), maxSplits: 1, omittingEmptySubsequences: false)
        .map { Substring($0) }
      guard sides.count == 2 else {
        throw ValidationError("\"\(text)\" is no pod: write --pod NAME:RESOURCES, as in --pod b:worker_pod_b=3.")
      }
      try check(String(sides[0]), "--pod")
      pods.append(.init(pod: .random(), name: Name(sides[0]), resources: try parse(String(sides[1]), "--pod")))
    }
    if Set(pods.map(\.name)).count < pods.count {
      throw ValidationError("Two pods have the same name: give each --pod its own.")
    }
    PodShares.divide(ResourceAmount(sizes.cpus), Resources.cpu, whole: ResourceAmount(1), among: &pods)
    PodShares.divide(ResourceAmount(sizes.memory.bytes), Resources.memory, whole: nil, among: &pods)
    return pods
  }

  private func parse(_ text: String, _ flag: String) throws -> Resources {
    do { return try Resources(parsing: text) } catch { throw ValidationError("\(flag): \(error.message)") }
  }

  /// - Throws: `MobulaError` for an address that is not this machine's, a port that is taken, a wildcard alone.
  func makeAddresses() throws(MobulaError) -> StartAddresses {
    let joins = address.flatMap { Endpoint($0) }
    let given = try listen.map { text throws(MobulaError) in try LocalAddress.numeric(text, "--listen") }
    let bound: String
    if let given {
      bound = given
    } else if let joins {
      bound = try LocalAddress.towards(joins)
    } else {
      bound = "127.0.0.1"
    }
    if LocalAddress.isWildcard(bound), advertise == nil {
      throw MobulaError(
        .invalidArgument,
        "--listen \(bound) is every address of this machine, and none that others could be told: give one, or add --advertise NAME or ADDRESS."
      )
    }
    let told = advertise.map { $0.hasPrefix("[") ? String($0.dropFirst().dropLast()) : $0 } ?? bound
    if let joins {
      try LocalAddress.checkFree(bound, port: 0)
      return StartAddresses(head: joins, listen: bound, address: told)
    }
    let port = try LocalAddress.checkFree(bound, port: port)
    let own = bound == "0.0.0.0" ? "127.0.0.1" : bound == "::" ? "::1" : bound
    return StartAddresses(head: .tcp(host: own, port: port), listen: bound, address: told)
  }

  func makeConfiguration(
    _ directory: RunDirectory, _ state: StateDirectory, _ sizes: StartSizes, _ addresses: StartAddresses,
    cluster journaled: ClusterID?
  ) throws -> StartConfiguration {
    let before = try? directory.readConfiguration()
    let identity = try state.identity()
    let name = try checkedName(in: directory)
    let host = identity?.host ?? before?.host ?? .random()
    let cluster = journaled ?? identity?.cluster ?? before?.cluster
    let spill =
      self.spill == ["none"] ? [] : self.spill.isEmpty ? ["/var/tmp/mobula-\(getuid())-\(host.short)"] : self.spill
    // What nobody named is no reason not to start; the host says it in its log.
    for place in self.spill where place != "none" && !StartConfiguration.isS3(place) {
      try SpillFolders.make(HostPaths.absolute(place))
    }
    return StartConfiguration(
      isHead: head, head: addresses.head, cluster: head ? cluster ?? .random() : nil, host: host, name: name,
      address: addresses.address, capacity: sizes.capacity,
      spill: spill.map { StartConfiguration.isS3($0) ? $0 : HostPaths.absolute($0) }, warm: warm / 100,
      spare: spare / 100, pods: try makePods(sizes, hostName: name), labels: try labels(label, "--label"),
      sendLimit: sendLimit.flatMap { LinkRate($0) }, receiveLimit: receiveLimit.flatMap { LinkRate($0) },
      spillEndpoint: s3Endpoint, state: state.path, listen: addresses.listen)
  }

  /// Limits of this process that its host would run into later, where no sentence could be said.
  func checkProcessLimits(_ capacity: ByteCount) throws(MobulaError) {
    func limit(_ resource: __rlimit_resource) -> Int? {
      var limit = rlimit()
      guard getrlimit(__rlimit_resource_t(resource.rawValue), &limit) == 0, limit.rlim_cur < 1 << 62 else { return nil }
      return Int(limit.rlim_cur)
    }
    func refuse(_ command: String, _ what: String, _ has: Int, _ needs: Int) -> MobulaError {
      MobulaError(
        .unavailable,
        "This process may have \(ByteCount(has)) of \(what) (`\(command)`), and a host with a store of \(capacity) needs \(ByteCount(needs).roundedUp): raise the limit, or give a smaller --capacity."
      )
    }
    // Mappings of the store's segments, each with more addresses than the capacity, and of threads.
    let addresses = 4 * capacity.bytes + 4_000_000_000
    if let has = limit(RLIMIT_AS), has < addresses { throw refuse("ulimit -v", "addresses", has, addresses) }
    let data = 1_000_000_000
    if let has = limit(RLIMIT_DATA), has < data { throw refuse("ulimit -d", "data", has, data) }
    if let has = limit(RLIMIT_FSIZE), has < capacity.bytes * 2 {
      throw refuse("ulimit -f", "bytes in a file, which the store's shared memory is,", has, capacity.bytes * 2)
    }
  }
}

/// How pods share what they don't name.
enum PodShares {
  /// Gives each pod without the resource its part of what the others leave: in whole units, as long as there is one for each.
  static func divide(
    _ total: ResourceAmount, _ name: Name, whole: ResourceAmount?, among pods: inout [StartConfiguration.PodEntry]
  ) {
    let sharing = pods.indices.filter { pods[$0].resources[name] == .zero }
    guard !sharing.isEmpty else { return }
    let named = pods.reduce(ResourceAmount.zero) { $0 + $1.resources[name] }
    let left = max(0, (total - named).tenThousandths)
    let unit = whole.map(\.tenThousandths) ?? 1
    let units = left / unit
    let isWhole = units >= sharing.count
    for (number, index) in sharing.enumerated() {
      let part =
        isWhole ? (units / sharing.count + (number < units % sharing.count ? 1 : 0)) * unit : left / sharing.count
      pods[index].resources[name] = ResourceAmount(tenThousandths: part)
    }
  }
}

extension ByteCount {
  /// A store has no less.
  fileprivate static let minimumStore = ByteCount(1 << 20)
}
