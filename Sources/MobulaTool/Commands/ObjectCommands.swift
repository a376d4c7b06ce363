import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaTerminal
import MobulaWire

struct PutCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "put", abstract: "Put a file into the store of this host, under a name, or into S3.",
    discussion: """
      \(S3Target.discussion)
      Examples:
        mobula put model.safetensors
        mobula put weights.bin --name whisper/weights
        mobula put weights.bin s3://models/whisper/
        mobula put weights.bin s3://models/w.bin --s3-endpoint http://10.0.0.9:8333
        tar c folder | mobula put - --name folder.tar
      """)

  @Argument(help: "The file; - for standard input.") var file: String
  @Argument(help: "s3://BUCKET/KEY, or s3://BUCKET/PREFIX/ for the file's own name below it. Default: the store.")
  var destination: String?
  @Option(help: "The object's name. Default: the file's.") var name: String?
  @Option(help: "Another S3 than the one in the environment, as http://HOST:PORT.") var s3Endpoint: String?
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    guard file == "-", name == nil else { return }
    guard let destination, destination.lowercased().hasPrefix("s3://"), !destination.hasSuffix("/") else {
      throw ValidationError("Standard input has no name of its own: give one with --name.")
    }
  }

  func run() async throws {
    Interruption.begin()
    let name = name ?? String(file.split(separator: "/").last ?? "")
    guard !name.isEmpty else { throw MobulaError(.invalidArgument, "The object needs a name: give one with --name.") }
    if let destination {
      guard let target = try S3Target(destination, name: name, endpoint: s3Endpoint) else {
        throw MobulaError(.invalidArgument, "\"\(destination)\" is no S3 address: give it as s3://BUCKET/KEY.")
      }
      return try await target.upload(file: file, json: json.json)
    }
    try await withCluster(directory.options) { cluster in
      let progress = Progress(file, total: nil)
      defer { progress.finish(succeeded: false) }
      let reference = try await cluster.putFile(file, name: name) { progress.update($0.bytes, of: $1?.bytes) }
      progress.finish()
      if json.json {
        try printJSON(["name": name, "object": reference.id.description])
      } else {
        print("\(reference.id)  \(name.printable)")
      }
    }
  }
}

struct GetCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "get", abstract: "Bring an object to this host and write it to a file, or to S3.",
    discussion: """
      \(S3Target.discussion)
      Examples:
        mobula get model.safetensors -o copy.safetensors
        mobula get 00000000…f00d -o copy --timeout 60
        mobula get model.safetensors -o s3://models/model.safetensors
        mobula get folder.tar -o - | tar x
      """)

  @Argument(help: "The object's name or id.") var id: String
  @Option(
    name: .shortAndLong,
    help: "The file to write, a folder for it, - for standard output, or s3://BUCKET/KEY.")
  var output: String
  @Option(help: "How long to wait for it, in seconds.") var timeout = 600.0
  @Option(help: "Another S3 than the one in the environment, as http://HOST:PORT.") var s3Endpoint: String?
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  private struct Written: Encodable {
    var output: String
    var size: Int
  }

  func validate() throws {
    guard timeout > 0, timeout < 1e7 else { throw ValidationError("--timeout takes seconds, more than 0.") }
    if output == "-", json.json {
      throw ValidationError("With -o - the object itself goes to standard output: leave --json away.")
    }
  }

  func run() async throws {
    Interruption.begin()
    let target = try S3Target(output, name: String(id.split(separator: "/").last ?? ""), endpoint: s3Endpoint)
    // Before anything is brought here for nothing.
    let file = try target == nil ? FileTarget(output, name: id) : nil
    try await withCluster(directory.options) { cluster in
      let reference = try await cluster.object(named: id, as: Blob.self)
      let progress = Progress(id, total: nil)
      defer { progress.finish(succeeded: false) }
      let watching = Task {
        while !Task.isCancelled {
          if let (verified, total) = try? await cluster.progress(of: reference.id), let total {
            progress.update(verified.bytes, of: total.bytes)
          }
          try await Task.sleep(for: .milliseconds(200))
        }
      }
      defer { watching.cancel() }
      let blob = try await reference.value(within: .seconds(timeout))
      watching.cancel()
      if let target {
        progress.finish()
        return try await target.upload(blob.count, title: output, json: json.json) { range in
          blob.withUnsafeBytes { Array($0[range]) }
        }
      }
      if let file { try await write(blob, to: file, on: cluster, progress) }
    }
  }

  private func write(_ blob: Blob, to file: FileTarget, on cluster: Cluster, _ progress: Progress) async throws {
    let outcome: FileTarget.Outcome
    do {
      outcome = try await cluster.write(blob, to: file)
    } catch let error as MobulaError where error.code == .connectionClosed && file.isStandardOutput {
      // As a program ends that SIGPIPE ends: whoever closed the pipe needs no sentence.
      throw ExitCode(128 + SIGPIPE)
    }
    progress.finish()
    if case .inPlace(let reason) = outcome {
      Log.write(STDERR_FILENO, "\(file.path) was written in place, not replaced at once: \(reason).\n")
    }
    if json.json { return try printJSON(Written(output: file.path, size: blob.count)) }
    if !file.isStandardOutput { print("\(ByteCount(blob.count)) in \(file.path)") }
  }
}

struct ListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the cluster's objects.",
    discussion: """
      In the order of their names; more than 4,096 in that of their ids, as they come.

      Examples:
        mobula ls
        mobula ls --json
      """)

  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    try await withCluster(directory.options) { cluster in
      if json.json {
        var list = JSONList()
        try await cluster.list { try list.add($0) }
        return list.finish()
      }
      let names = Dictionary(
        try await cluster.status().hosts.map { ($0.host, $0.name) }, uniquingKeysWith: { a, _ in a })
      var table = TextTable([("name", .left), ("size", .right), ("hosts", .left), ("holders", .right), ("id", .left)])
      // The first page waits, as it may be all, and then is in the order of names.
      var first: [ObjectListing]?
      var isLong = false
      try await cluster.list { page in
        guard first != nil || isLong else { return first = page }
        for objects in [first ?? [], page] where !objects.isEmpty { show(objects, names, &table) }
        (first, isLong) = (nil, true)
      }
      let all = (first ?? []).sorted { ($0.names.first ?? "", $0.object) < ($1.names.first ?? "", $1.object) }
      if !isLong { show(all, names, &table) }
    }
  }

  private func show(_ objects: [ObjectListing], _ names: [HostID: String], _ table: inout TextTable) {
    for object in objects {
      let hosts = object.hosts.map { names[$0] ?? $0.short } + object.receiving.map { "(\(names[$0] ?? $0.short))" }
      table.add([
        object.names.isEmpty ? "-" : object.names.map(\.description).joined(separator: " "), "\(object.size)",
        hosts.joined(separator: " "), "\(object.holders)", "\(object.object)",
      ])
    }
    print(table.takeLines().joined(separator: "\n"))
  }
}

struct RemoveCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rm", abstract: "Remove objects from the cluster.",
    discussion: "Example:\n  mobula rm model.safetensors")

  @Argument(help: "Names or ids.") var ids: [String]
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    try await withEach(ids, directory.options) { cluster, id in
      let removed = try await cluster.remove(id)
      return "removed \(removed.names.first?.description ?? "\(removed.object)") (\(removed.size))"
    }
  }
}

struct HoldCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hold", abstract: "Keep objects until they are released, whoever else holds them.",
    discussion: "Example:\n  mobula hold 00000001…f00d")

  @Argument(help: "Names or ids.") var ids: [String]
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    try await withEach(ids, directory.options) { cluster, id in
      let reference = try await cluster.object(named: id, as: Blob.self)
      try await cluster.hold(reference)
      return "held \(reference.id)"
    }
  }
}

struct ReleaseCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "release", abstract: "End what `mobula hold` began; an object that nothing else holds goes.",
    discussion: "Example:\n  mobula release 00000001…f00d")

  @Argument(help: "Names or ids.") var ids: [String]
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    try await withEach(ids, directory.options) { cluster, id in
      let reference = try await cluster.object(named: id, as: Blob.self)
      try await cluster.release(reference.id)
      return "released \(reference.id)"
    }
  }
}

struct FetchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fetch", abstract: "Bring objects of S3 into the cluster, under their URLs as names.",
    discussion: """
      The host downloads, with the credentials of its own environment, files, container or instance, which
      `mobula credentials` shows there. Hosts that want the same read it together, each a part, and give each other what
      they have read. What the cluster has already is not downloaded again.

      Examples:
        mobula fetch s3://models/whisper/
        mobula fetch s3://models/whisper/model.bin --explain
        mobula fetch s3://models/whisper/model.bin --s3-endpoint http://10.0.0.9:8333
      """)

  @Argument(help: "s3://BUCKET/PREFIX") var url: String
  @Option(help: "Another S3 than the one in the host's environment, as http://HOST:PORT.") var s3Endpoint: String?
  @Flag(help: "Say from where the bytes came, and why.") var explain = false
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  private struct Fetched: Encodable {
    struct Source: Encodable {
      /// `s3`, or a host's name.
      var source: String
      var bytes: Int
    }
    var name: String
    var object: String
    var size: Int
    /// With `--explain`.
    var sources: [Source]?
    /// Why bytes were read from S3 that other hosts had.
    var reason: String?
    /// The algorithm of S3's checksum that the bytes were found to have.
    var checksum: String?
    /// Why they were not compared with one.
    var unverified: String?

    var lines: [String] {
      guard let sources else { return [] }
      if sources.isEmpty { return ["  it was made on this host, or came long ago"] }
      let verification =
        checksum.map { ["  verified: the bytes have S3's checksum (\($0))"] }
        ?? unverified.map { ["  not verified by a checksum of S3's: \($0)"] } ?? []
      return verification
        + sources.map { source in
          let share = size > 0 ? source.bytes * 100 / size : 100
          let whence = source.source == "s3" ? "S3" : "host \(source.source)"
          let why =
            source.source != "s3"
            ? "which had it first" : reason.map { "also as \($0)" } ?? "the parts that this host was to read"
          return "  \(ByteCount(source.bytes)) (\(share)%) from \(whence): \(why)"
        }
    }
  }

  private func explain(
    _ fetched: inout Fetched, _ object: ObjectID, _ names: [HostID: String], on cluster: Cluster
  ) async throws {
    fetched.sources = []
    guard let origins = try await cluster.origins(of: object) else { return }
    let hosts = origins.fromHosts.map { Fetched.Source(source: names[$0] ?? $0.short, bytes: $1) }
    let s3 = origins.fromS3 > 0 ? [Fetched.Source(source: "s3", bytes: origins.fromS3)] : []
    fetched.sources = s3 + hosts.sorted { ($1.bytes, $0.source) < ($0.bytes, $1.source) }
    fetched.reason = origins.reason
    fetched.checksum = origins.checksum
    fetched.unverified = origins.unverified
  }

  func run() async throws {
    try await withCluster(directory.options) { cluster in
      let entries = try await cluster.listS3(url, endpoint: s3Endpoint)
      guard !entries.isEmpty else {
        throw MobulaError(.notFound, "There is nothing under \(url): check the bucket and the prefix.")
      }
      let total = entries.reduce(ByteCount(0)) { $0 + $1.size }.bytes
      let progress = Progress(url, total: nil)
      defer { progress.finish(succeeded: false) }
      let names =
        explain
        ? Dictionary(try await cluster.status().hosts.map { ($0.host, $0.name) }, uniquingKeysWith: { a, _ in a })
        : [:]
      var done = 0
      var fetched: [Fetched] = []
      for entry in entries {
        progress.update(done, of: total)
        let before = done
        let reference = try await cluster.fetch(entry.url, endpoint: s3Endpoint) { verified, _ in
          progress.update(before + min(verified.bytes, entry.size.bytes), of: total)
        }
        done += entry.size.bytes
        var one = Fetched(name: entry.url, object: "\(reference.id)", size: entry.size.bytes)
        if explain { try await explain(&one, reference.id, names, on: cluster) }
        fetched.append(one)
      }
      progress.update(done, of: total)
      progress.finish()
      if json.json { return try printJSON(fetched) }
      for entry in fetched {
        print((["\(entry.object)  \(entry.name.printable)"] + entry.lines).joined(separator: "\n"))
      }
    }
  }
}

/// Does one thing to each of the objects, and prints what `body` says of it.
private func withEach(
  _ ids: [String], _ options: ClusterOptions, _ body: (Cluster, String) async throws -> String
) async throws {
  try await withCluster(options) { cluster in
    for id in ids { print(try await body(cluster, id)) }
  }
}

/// Runs `body` with a connection that is closed whatever happens.
func withCluster<Result>(_ options: ClusterOptions, _ body: (Cluster) async throws -> Result) async throws -> Result {
  let cluster = try await Cluster.connectTool(options)
  do {
    let result = try await body(cluster)
    await cluster.close()
    return result
  } catch {
    await cluster.close()
    throw error
  }
}
