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
      others, and their copies are kept from then on. When nothing is left that anybody would miss, it \
      may go: `mobula stop` on it. Ctrl-C ends the command; the host stays closed to new work, also when the head is \
      started again, until `--cancel`. The exit status is 1 when something is left.

      Examples:
        mobula host drain gpu-3
        mobula host drain gpu-3 --timeout 600 --json
        mobula host drain gpu-3 --cancel
      """)

  @Argument(help: "The host, by its name, its id, or a beginning of that.") var host: String
  @Flag(help: "Let the host have work again; what was copied stays where it is.") var cancel = false
  @Option(parsing: .unconditional, help: "Seconds to wait at most. Default: until it may go.") var timeout: Double?
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if host.isEmpty { throw ValidationError("A host's name or id can't be empty: `mobula status` lists them.") }
    if let timeout, !(0...1e9 ~= timeout) { throw ValidationError("--timeout takes seconds, from 0 to 1000000000.") }
    if cancel, timeout != nil { throw ValidationError("--cancel waits for nothing: leave --timeout out.") }
  }

  func run() async throws {
    if cancel {
      let reply = try await withCluster(directory.options) { try await $0.drainHost(host, cancels: true) }
      if json.json { return try printJSON(Report(reply)) }
      return print("Host \(reply.name) takes work again.")
    }
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let (reply, remains) = try await withCluster(directory.options) { cluster in
      let reply = try await cluster.drainHost(host)
      let remains = try await withThrowingTaskGroup(of: HostRemains?.self) { group in
        group.addTask { try await drain(reply, on: cluster) }
        group.addTask {
          for await _ in signals {
            Log.write(
              STDERR_FILENO,
              "Host \(reply.name) takes no more work: `mobula host drain \(reply.name)` goes on, with --cancel it takes work again.\n"
            )
            throw ExitCode(130)
          }
          throw CancellationError()
        }
        if let timeout {
          group.addTask {
            try await Task.sleep(for: .seconds(timeout))
            return nil
          }
        }
        defer { group.cancelAll() }
        return try await group.next()!
      }
      if let remains { return (reply, remains) }
      return (reply, try await self.remains(of: reply, on: cluster, within: .seconds(2)))
    }
    let mayGo = remains.isEmpty
    if json.json { try printJSON(Report(reply, remains)) }
    guard mayGo else {
      Log.error(
        "Host \(reply.name) can't go yet: \(remains.described). It takes no more work: drain it again, or with --cancel."
      )
      throw ExitCode(1)
    }
    guard !json.json else { return }
    print("Host \(reply.name) may go: `mobula stop` on it.")
    if remains.runsHead { print("The head runs there, too, and ends with it: see `mobula head backup`.") }
  }

  /// - Parameter limit: how long a head that was just started is waited for.
  /// - Throws: `MobulaError`: `unavailable` when it has not heard of all by then.
  private func remains(
    of reply: DrainReply, on cluster: Cluster, within limit: Duration = .seconds(30)
  ) async throws -> HostRemains {
    let end = ContinuousClock.now + limit
    while true {
      let status = try await cluster.status()
      let listings = try await cluster.list()
      let after = try await cluster.status()
      // A head that was started meanwhile may not know yet what is where.
      if status.settling == true || after.settling == true || status.epoch != after.epoch {
        guard ContinuousClock.now < end else {
          throw MobulaError(.unavailable, "The head was just started, and has not heard of all hosts yet: try again.")
        }
        try await Task.sleep(for: .milliseconds(100))
        continue
      }
      var remains = HostRemains(of: reply.host, after, listings)
      if let here = try? directory.runDirectory.readConfiguration(), here.host == reply.host {
        remains.runsHead = here.isHead
      }
      return remains
    }
  }

  /// - Returns: what is left on the host, which is nothing unless nobody can take it.
  private func drain(_ reply: DrainReply, on cluster: Cluster) async throws -> HostRemains {
    let progress = Progress("Draining \(reply.name)", total: nil)
    defer { progress.finish(succeeded: false) }
    var copied = 0
    // Hosts that did not take what they were to have, and why the last of them did not.
    var avoided: Set<HostID> = []
    var problem: MobulaError?
    while true {
      var remains = try await remains(of: reply, on: cluster)
      progress.update(copied, of: copied + remains.bytes)
      if remains.isEmpty { return remains }
      guard remains.isDraining else {
        throw MobulaError(.cancelled, "Host \(reply.name) takes work again: somebody has ended that it is drained.")
      }
      if remains.isAbsent {
        remains.problem = MobulaError(
          .unavailable,
          "Nothing can be copied from it until it is back; `mobula host forget` gives it up with what it has."
        )
        return remains
      }
      var targets = remains.targets.without(avoided)
      let waiting = remains.isConnected ? remains.objects : []
      for object in waiting where !targets.canHave(object.size.bytes) && problem == nil {
        problem = MobulaError(
          .full,
          "No host that stays has a store for object \(object.names.first ?? Name(object.object.description)) of \(object.size): start one, or remove the object."
        )
      }
      let pushes = waiting.filter { targets.canHave($0.size.bytes) }
      // Nothing can be copied, and nothing else is waited for.
      if pushes.isEmpty, !waiting.isEmpty, remains.leases == 0 {
        remains.problem = problem
        return remains
      }
      try await withThrowingTaskGroup(of: (HostID, Int, MobulaError?).self) { group in
        var running = 0
        func take(_ ended: (host: HostID, bytes: Int, failure: MobulaError?)) {
          copied += ended.bytes
          if let failure = ended.failure {
            problem = failure
            avoided.insert(ended.host)
          }
          progress.update(copied)
        }
        for object in pushes {
          if running == 4, let ended = try await group.next() {
            running -= 1
            take(ended)
            targets = targets.without(avoided)
          }
          guard let target = targets.take(object.size.bytes) else { continue }
          running += 1
          group.addTask {
            let states = try await cluster.push(object.object, to: [target])
            return (target.host, states[0].isComplete ? object.size.bytes : 0, states[0].failure)
          }
        }
        for try await ended in group { take(ended) }
      }
      if pushes.isEmpty { try await Task.sleep(for: .seconds(1)) }
    }
  }

  private struct Report: Encodable {
    var host: HostID
    var name: Name
    var mayGo: Bool?
    var runsHead: Bool?
    var leases: Int?
    var objects: Int?
    var bytes: Int?
    var problem: String?

    init(_ reply: DrainReply, _ remains: HostRemains? = nil) {
      (host, name) = (reply.host, reply.name)
      guard let remains else { return }
      mayGo = remains.isEmpty
      runsHead = remains.runsHead ? true : nil
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
  /// Whether it is away, so that nothing can be copied from it, and nobody knows all that it has.
  var isAbsent = false
  /// Whether it is there now.
  var isConnected = false
  var isDraining = true
  /// Whether the head runs there, as far as can be told.
  var runsHead = false
  /// Where copies may go.
  var targets: DrainTargets
  /// Why the last of them could not be copied.
  var problem: MobulaError?

  init(of host: HostID, _ status: ClusterStatus, _ listings: [ObjectListing]) {
    // Of one that has just gone nobody knows whether it comes back.
    let staying = Set(status.hosts.filter { $0.connected && $0.draining != true && $0.host != host }.map(\.host))
    objects = listings.filter { listing in
      (listing.hosts + (listing.absent ?? [])).contains(host) && staying.isDisjoint(with: listing.hosts)
    }
    leases = status.pods.filter { $0.host == host }.reduce(0) { $0 + $1.leases }
    let member = status.hosts.first { $0.host == host }
    isConnected = member?.connected == true
    isDraining = member.map { $0.draining == true } ?? true
    isAbsent = member == nil
    targets = DrainTargets(status)
    if case .tcp(let address, _) = status.head {
      let there = status.hosts.filter { if case .tcp(address, _) = $0.bulk { true } else { false } }
      runsHead = there.map(\.host) == [host]
    }
  }

  var isEmpty: Bool { objects.isEmpty && leases == 0 && isConnected }
  var bytes: Int { objects.reduce(0) { $0 + $1.size.bytes } }

  /// The middle of a sentence, and perhaps another sentence.
  var described: String {
    var parts: [String] = isConnected ? [] : ["it is away"]
    if !objects.isEmpty {
      parts.append("only it has \(objects.count) object\(objects.count == 1 ? "" : "s") (\(ByteCount(bytes)))")
    }
    if leases > 0 { parts.append("\(leases) lease\(leases == 1 ? " still runs" : "s still run") there") }
    var reason = problem?.message ?? ""
    while reason.hasSuffix(".") { reason.removeLast() }
    return parts.joined(separator: ", ") + (reason.isEmpty ? "" : ". " + reason)
  }
}

/// Where copies may go: the hosts that stay, and how much room each has by what it says. What a host has on disk counts
/// in that, so that one without room may take an object all the same.
struct DrainTargets {
  private var room: [(host: ClusterStatus.Host, bytes: Int)]

  init(_ status: ClusterStatus) {
    room = status.hosts.filter { $0.connected && $0.draining != true }.map {
      ($0, $0.capacity.bytes - $0.bytes.bytes)
    }
  }

  /// As these, but for some hosts.
  func without(_ hosts: Set<HostID>) -> DrainTargets {
    var rest = self
    rest.room.removeAll { hosts.contains($0.host.host) }
    return rest
  }

  /// Whether a store is as large as that.
  func canHave(_ bytes: Int) -> Bool { room.contains { $0.host.capacity.bytes >= bytes } }

  /// The host with the most room, which has so much less from now on; `nil` when the stores of all are smaller.
  mutating func take(_ bytes: Int) -> ClusterStatus.Host? {
    let fitting = room.indices.filter { room[$0].host.capacity.bytes >= bytes }
    guard let index = fitting.max(by: { (room[$0].bytes, $1) < (room[$1].bytes, $0) }) else { return nil }
    room[index].bytes -= bytes
    return room[index].host
  }
}
