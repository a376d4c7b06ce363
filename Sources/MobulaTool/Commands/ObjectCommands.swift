import ArgumentParser
import Mobula
import MobulaCore
import MobulaSupervisor
import MobulaTerminal
import MobulaWire

struct QuietFlag: ParsableArguments {
  @Flag(name: .shortAndLong, help: "Print ids alone (of what goes to S3, addresses), and no progress.") var quiet =
    false

  /// Progress of something, which isn't shown where ids alone are wanted.
  func progress(_ title: String) -> Progress? { quiet ? nil : Progress(title, total: nil) }
}

struct ListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the cluster's objects.",
    discussion: """
      In the order of their names; more than 4,096 in that of their ids, as they come. What came from S3 is listed by \
      its URL; the name of the version that it is, with ETag and endpoint, is in --json alone, and so is that of a hold.

      Examples:
        mobula ls
        mobula ls --json
        mobula ls --address 10.0.0.1:7600 --token-file viewer-token
      """)

  @OptionGroup var json: JSONFlag
  @OptionGroup var quiet: QuietFlag
  @OptionGroup var remote: RemoteOptions
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if quiet.quiet, json.json { throw ValidationError("Give --quiet or --json, not both.") }
  }

  func run() async throws {
    if let head = try remote.head {
      return try await head.withConnection { connection in
        try await show(
          pages: { try await RemoteHead.list(connection, $0) }, status: { try await RemoteHead.status(connection) })
      }
    }
    try await withCluster(directory.options) { cluster in
      try await show(pages: { try await cluster.list($0) }, status: { try await cluster.status() })
    }
  }

  private func show(
    pages: (([ObjectListing]) async throws -> Void) async throws -> Void, status: () async throws -> ClusterStatus
  ) async throws {
    if quiet.quiet { return try await pages { for object in $0 { print(object.object) } } }
    if json.json {
      var list = JSONList()
      try await pages { try list.add($0) }
      return list.finish()
    }
    let names = Dictionary(
      try await status().hosts.map { ($0.host, $0.name) }, uniquingKeysWith: { a, _ in a })
    var table = TextTable([("name", .left), ("size", .right), ("hosts", .left), ("holders", .right), ("id", .left)])
    // The first page waits, as it may be all, and then is in the order of names.
    var first: [ObjectListing]?
    var isLong = false
    try await pages { page in
      guard first != nil || isLong else { return first = page }
      for objects in [first ?? [], page] where !objects.isEmpty { show(objects, names, &table) }
      (first, isLong) = (nil, true)
    }
    let all = (first ?? []).map { (name: $0.namesForPeople.first ?? "", object: $0) }
      .sorted { ($0.name, $0.object.object) < ($1.name, $1.object.object) }.map(\.object)
    if !isLong { show(all, names, &table) }
  }

  private func show(_ objects: [ObjectListing], _ names: [HostID: Name], _ table: inout TextTable) {
    for object in objects {
      func name(_ host: HostID) -> String { names[host].map { "\($0)" } ?? host.short }
      let hosts =
        object.hosts.map { name($0) } + object.receiving.map { "(\(name($0)))" }
        + (object.absent ?? []).map { "[\(name($0))]" }
      // Its name is there, and nobody to have it from any more.
      let isGone = hosts.isEmpty && object.size.bytes > 0
      // A head that was started again knows its name, and nobody who is there has it; or it is not made yet.
      let isUnknown = hosts.isEmpty && object.size.bytes == 0
      table.add([
        object.namesForPeople.isEmpty ? "-" : object.namesForPeople.joined(separator: " "),
        isUnknown ? "-" : "\(object.size)", isGone ? "gone" : isUnknown ? "none" : hosts.joined(separator: " "),
        "\(object.holders)", "\(object.object)",
      ])
    }
    print(table.takeLines().joined(separator: "\n"))
  }
}

extension ObjectListing {
  /// The names, but for those of versions, which say again what the URL beside them says, and more than people read; and
  /// that of a hold, which is a word behind them.
  fileprivate var namesForPeople: [String] {
    givenNames.map(\.description) + (names.contains(holdName) ? ["(held)"] : [])
  }

  private var holdName: Name { Name(Cluster.holdName(object)) }

  /// Those that somebody has given.
  fileprivate var givenNames: [Name] {
    // Versions that a build before named begin as their URLs do.
    let urls = names.map { $0 + "#" }
    return names.filter { name in
      name != holdName && !name.hasPrefix(ReservedNames.version) && !urls.contains { name.hasPrefix($0.text) }
    }
  }
}

/// Objects that a command does something to.
struct ObjectArguments: ParsableArguments {
  @Argument(help: "Names, ids, or beginnings of ids; NAME/ for all below it.") var ids: [String]

  func validate() throws {
    if ids.contains("") {
      throw ValidationError("An object's name or id can't be empty: `mobula ls` lists what there is.")
    }
  }
}

struct RemoveCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rm", abstract: "Remove objects from the cluster.",
    discussion: """
      They go from every host. What was fetched from S3 stays there.

      Examples:
        mobula rm model.safetensors
        # All objects whose names begin so.
        mobula rm model/
      """)

  @OptionGroup var objects: ObjectArguments
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    try await withEach(objects.ids, directory.options) { cluster, id in
      let removed = try await cluster.remove("\(try await cluster.find(id).object)")
      let wasHeld = removed.names.contains(Name(Cluster.holdName(removed.object)))
      let name = removed.namesForPeople.first { $0 != "(held)" } ?? "\(removed.object)"
      let stays = name.utf8.starts(with: "s3://".utf8) ? " from the cluster; it stays in S3" : ""
      return "removed \(name) (\(removed.size))\(wasHeld ? ", which was held" : "")\(stays)"
    }
  }
}

struct HoldCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hold", abstract: "Keep objects until they are released, whoever else holds them.",
    discussion: "Example:\n  mobula hold model.safetensors")

  @OptionGroup var objects: ObjectArguments
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    try await withEach(objects.ids, directory.options) { cluster, id in
      let (reference, _) = try await cluster.object(found: id)
      try await cluster.hold(reference)
      return "held \(reference.id)"
    }
  }
}

struct ReleaseCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "release", abstract: "End what `mobula hold` began; an object that nothing else holds goes.",
    discussion: "Example:\n  mobula release model.safetensors")

  @OptionGroup var objects: ObjectArguments
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    try await withEach(objects.ids, directory.options) { cluster, id in
      let object = try await cluster.find(id).object
      try await cluster.release(object)
      return "released \(object)"
    }
  }
}

/// Does one thing to each of the objects, and prints what `body` says of it; those that it fails for are said, and the
/// exit status is 1 then.
private func withEach(_ ids: [String], _ options: ClusterOptions, _ body: (Cluster, String) async throws -> String)
  async throws
{
  try await withCluster(options) { cluster in
    var hasFailed = false
    func attempt<Value>(_ body: () async throws -> Value) async throws -> Value? {
      do { return try await body() } catch let error as MobulaError
        where [.notFound, .invalidArgument].contains(error.code)
      {
        Log.error("\(error)")
        hasFailed = true
        return nil
      }
    }
    var done: Set<Name> = []
    for id in ids where done.insert(Name(id)).inserted {
      for object in try await attempt({ try await each(id, on: cluster) }) ?? [] {
        // What was below a prefix a moment ago may have gone by itself.
        let mayBeGone = object != id
        let line = try await attempt {
          do { return try await body(cluster, object) } catch let error as MobulaError
            where error.code == .notFound && mayBeGone
          { return "" }
        }
        if let line, !line.isEmpty { print(line) }
      }
    }
    if hasFailed { throw ExitCode(1) }
  }
}

/// What an argument names: all objects below `PREFIX/`, unless one is called exactly so.
private func each(_ id: String, on cluster: Cluster) async throws -> [String] {
  guard id.hasSuffix("/") else { return [id] }
  var below: [(name: Name, object: ObjectID)] = []
  try await cluster.list { page in
    for listing in page {
      let name = listing.givenNames.filter { $0.text.utf8.starts(with: id.utf8) }.min()
      if let name { below.append((name, listing.object)) }
    }
  }
  guard !below.isEmpty else {
    throw MobulaError(.notFound, "No object's name begins with \(id.printable): `mobula ls` lists what there is.")
  }
  if below.contains(where: { $0.name == Name(id) }) { return [id] }
  return below.sorted { ($0.name, $0.object) < ($1.name, $1.object) }.map { "\($0.object)" }
}

/// Runs `body` with a connection that is closed whatever happens.
func withCluster<Result>(_ options: ClusterOptions, _ body: (Cluster) async throws -> Result) async throws -> Result {
  let cluster: Cluster
  do {
    cluster = try await Cluster.connectTool(options)
  } catch var error as MobulaError where error.code == .unavailable {
    // Started with another directory, or one that is gone: then it would never be found.
    let others = RunningSupervisor.all().map(\.directory).filter { $0 != options.directory }
    if let first = others.first {
      error.message += " One runs with the directory \(first): give --directory, or set MOBULA_DIRECTORY."
    }
    throw error
  }
  do {
    let result = try await body(cluster)
    await cluster.close()
    return result
  } catch {
    await cluster.close()
    throw error
  }
}
