import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaSupervisor
import MobulaTerminal
import UnixSignals

struct DrainHostCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "drain",
    abstract: "Empty a host before it is stopped: it gets no more work, and its objects are copied.",
    discussion: """
      The host's pods get no more leases; those that they have end by themselves. What only this host has is copied to \
      others that have room, and their copies are kept from then on. When nothing is left that anybody would miss, it \
      may go: `mobula stop` on it. Ctrl-C ends the command; the host stays closed to new work, also when the head is \
      started again, until `--cancel`. The exit status is 1 when something is left.

      Examples:
        mobula host drain gpu-3
        mobula host drain gpu-3 --timeout 600 --json
        mobula host drain gpu-3 --cancel
      """)

  @Argument(help: "The host, by its name or identifier.") var host: String
  @Flag(help: "Let the host have work again; what was copied stays where it is.") var cancel = false
  @Option(help: "Seconds to wait at most. Default: until it may go.") var timeout: Double?
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if let timeout, !(0...1e9 ~= timeout) { throw ValidationError("--timeout takes seconds, from 0 to 1000000000.") }
    if cancel, timeout != nil { throw ValidationError("--cancel waits for nothing: leave --timeout out.") }
  }

  func run() async throws {
    if cancel {
      let reply = try await withCluster(directory.options) { try await $0.drainHost(host, cancels: true) }
      if json.json { return try printJSON(Report(reply, HostRemains(), mayGo: false)) }
      return print("Host \(reply.name) takes work again.")
    }
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let name = host.printable
    let (reply, remains) = try await withCluster(directory.options) { cluster in
      try await withThrowingTaskGroup(of: (DrainReply, HostRemains).self) { group in
        group.addTask { try await drain(on: cluster) }
        group.addTask {
          for await _ in signals { break }
          Log.write(
            STDERR_FILENO,
            "Host \(name) takes no more work: `mobula host drain \(name)` goes on, with --cancel it takes work again.\n"
          )
          throw ExitCode(130)
        }
        defer { group.cancelAll() }
        return try await group.next()!
      }
    }
    let mayGo = remains.isEmpty
    if json.json { try printJSON(Report(reply, remains, mayGo: mayGo)) }
    guard mayGo else {
      Log.error(
        "Host \(reply.name) can't go yet: \(remains.described). It takes no more work: drain it again, or with --cancel."
      )
      throw ExitCode(1)
    }
    if !json.json { print("Host \(reply.name) may go: `mobula stop` on it.") }
  }

  /// - Returns: what is left on the host, which is nothing unless the time is over, or nobody has room.
  private func drain(on cluster: Cluster) async throws -> (DrainReply, HostRemains) {
    let end = timeout.map { ContinuousClock.now + .seconds($0) }
    let reply = try await cluster.drainHost(host)
    let progress = Progress("Draining \(reply.name)", total: nil)
    defer { progress.finish(succeeded: false) }
    var copied = 0
    while true {
      let status = try await cluster.settledStatus()
      var remains = HostRemains(of: reply.host, status, try await cluster.list())
      progress.update(copied, of: copied + remains.bytes)
      if remains.isEmpty { return (reply, remains) }
      let before = copied
      try await withThrowingTaskGroup(of: (Int, MobulaError?).self) { group in
        var targets = DrainTargets(status)
        var running = 0
        for object in remains.objects {
          if let end, .now >= end { break }
          if running == 4, let (bytes, failure) = try await group.next() {
            running -= 1
            copied += bytes
            remains.problem = failure ?? remains.problem
            progress.update(copied)
          }
          guard let target = targets.take(object.size.bytes) else {
            remains.problem = MobulaError(
              .full, "No other host has room for object \(object.object) of \(object.size).")
            continue
          }
          running += 1
          group.addTask {
            let states = try await cluster.push(object.object, to: [target])
            return (states[0].isComplete ? object.size.bytes : 0, states[0].failure)
          }
        }
        for try await (bytes, failure) in group {
          copied += bytes
          remains.problem = failure ?? remains.problem
          progress.update(copied)
        }
      }
      if copied > before { continue }
      if let end, .now >= end { return (reply, remains) }
      // Nothing can be copied, and nothing else is waited for.
      if remains.leases == 0, remains.problem != nil { return (reply, remains) }
      let pause = ContinuousClock.now + .seconds(1)
      try await Task.sleep(until: min(pause, end ?? pause), clock: .continuous)
    }
  }

  private struct Report: Encodable {
    var host: HostID
    var name: Name
    var mayGo: Bool
    var leases: Int
    var objects: Int
    var bytes: Int
    var problem: String?

    init(_ reply: DrainReply, _ remains: HostRemains, mayGo: Bool) {
      (host, name, self.mayGo) = (reply.host, reply.name, mayGo)
      (leases, objects, bytes) = (remains.leases, remains.objects.count, remains.bytes)
      problem = remains.problem?.message
    }
  }
}

/// What a host has that would be gone with it.
struct HostRemains {
  /// Objects of which no host that stays has a whole copy.
  var objects: [ObjectListing] = []
  var leases = 0
  /// Why the last of them could not be copied.
  var problem: MobulaError?

  init() {}

  init(of host: HostID, _ status: ClusterStatus, _ listings: [ObjectListing]) {
    let staying = Set(status.hosts.filter { $0.draining != true && $0.host != host }.map(\.host))
    objects = listings.filter { $0.hosts.contains(host) && staying.isDisjoint(with: $0.hosts) }
    leases = status.pods.filter { $0.host == host }.reduce(0) { $0 + $1.leases }
  }

  var isEmpty: Bool { objects.isEmpty && leases == 0 }
  var bytes: Int { objects.reduce(0) { $0 + $1.size.bytes } }

  var described: String {
    var parts: [String] = []
    if !objects.isEmpty { parts.append("only it has \(objects.count) objects (\(ByteCount(bytes)))") }
    if leases > 0 { parts.append("\(leases) leases still run there") }
    if let problem { parts.append(problem.message) }
    return parts.joined(separator: ", ")
  }
}

/// Where copies may go: the hosts that stay, and how much room each has by what it says.
struct DrainTargets {
  private var room: [(host: ClusterStatus.Host, bytes: Int)]

  init(_ status: ClusterStatus) {
    room = status.hosts.filter { $0.connected && $0.draining != true }.map {
      ($0, max(0, $0.capacity.bytes - $0.bytes.bytes))
    }
  }

  /// The host with the most room, which has so much less from now on; `nil` when none has enough.
  mutating func take(_ bytes: Int) -> ClusterStatus.Host? {
    guard let index = room.indices.max(by: { (room[$0].bytes, $1) < (room[$1].bytes, $0) }), room[index].bytes >= bytes
    else { return nil }
    room[index].bytes -= bytes
    return room[index].host
  }
}
