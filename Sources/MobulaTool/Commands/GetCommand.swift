import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaS3
import MobulaSupervisor
import MobulaTerminal

struct GetCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "get", abstract: "Bring an object to this host and write it to a file, or to S3.",
    discussion: """
      A name that ends in / means all objects whose names begin so: each is written below the output's folder. What is in \
      S3 and not in the cluster yet is fetched.

      What is there stays what it is: a device, a FIFO and what a symbolic link leads to get the bytes, a file is \
      replaced as a whole and keeps its mode and owner.

      \(S3Target.discussion)

      Examples:
        mobula get model.safetensors -o copy.safetensors
        mobula get model/ -o folder/
        mobula get s3://models/whisper/ -o whisper/
        mobula get model.safetensors -o s3://models/model.safetensors
        mobula get folder.tar -o - | tar x
      """)

  @Argument(help: "The object's name, its id, or a beginning of that; NAME/ for all below it.") var id: String
  @Option(name: .shortAndLong, help: "The file to write, a folder for it, - for standard output, or s3://BUCKET/KEY.")
  var output: String
  @Option(
    parsing: .unconditional,
    help: "Seconds to wait for it at most. Default: 600, and for what comes from S3 as long as bytes come.")
  var timeout: Double?
  @OptionGroup var s3: S3Options
  @Flag(name: .shortAndLong, help: "Print nothing but what went wrong.") var quiet = false
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  private struct Written: Encodable {
    var output: String
    var size: Int
  }

  /// What is said of an object that was got.
  private enum Outcome: Encodable {
    case written(Written)
    case uploaded(S3Target.Uploaded)

    func encode(to encoder: any Encoder) throws {
      switch self {
      case .written(let file): try file.encode(to: encoder)
      case .uploaded(let object): try object.encode(to: encoder)
      }
    }
  }

  private var isPrefix: Bool { id.hasSuffix("/") }

  func validate() throws {
    if let timeout, !(timeout > 0 && timeout <= 1e7) {
      throw ValidationError("--timeout takes seconds, more than 0 and up to 10 million.")
    }
    if quiet, json.json { throw ValidationError("Give --quiet or --json, not both.") }
    if id == "" { throw ValidationError("An object's name or id can't be empty: `mobula ls` lists what there is.") }
    for text in [id, output] { try S3Target.check(text) }
    try s3.check(for: [id, output])
    if S3Target.isS3(id), !isPrefix, try S3URL(id).key.isEmpty {
      throw ValidationError("\(id.printable) is a bucket: give \(id.printable)/KEY, or \(id.printable)/ for all in it.")
    }
    if output == "" { throw ValidationError("--output takes a path, which can't be empty.") }
    if output == "-", json.json {
      throw ValidationError("With -o - the object itself goes to standard output: leave --json away.")
    }
    if output == "-", isPrefix {
      throw ValidationError("Several objects can't go to standard output one behind the other: give a folder.")
    }
  }

  func run() async throws {
    Interruption.begin()
    if isPrefix { return try await getAll() }
    // Before anything is brought here for nothing.
    let place: Place
    if let target = try S3Target(output, name: lastPart(id), s3.access) {
      place = .s3(target)
    } else {
      place = .file(try FileTarget(output, name: id))
    }
    try await withCluster(directory.options) { cluster in
      let written = try await get(id, to: place, on: cluster)
      if json.json { try printJSON(written) }
    }
  }

  private func getAll() async throws {
    try await withCluster(directory.options) { cluster in
      let names: [String]
      if S3Target.isS3(id) {
        // What is there now; the cluster may know some of it, and versions of it by names of their own.
        names = try await S3OfHost.explaining { try await cluster.listS3(id, access: s3.access).map(\.url) }
      } else {
        names = try await cluster.list().flatMap(\.names).map(\.text).filter { $0.utf8.starts(with: id.utf8) }
      }
      guard !names.isEmpty else {
        throw MobulaError(.notFound, "No object's name begins with \(id): `mobula ls` lists what there is.")
      }
      var done: [Outcome] = []
      var hasFailed = false
      for name in names.sorted() {
        let rest = String(decoding: name.utf8.dropFirst(id.utf8.count), as: UTF8.self)
        if rest.isEmpty { continue }
        do {
          if S3Target.isS3(output) {
            let folder = output.hasSuffix("/") ? output : output + "/"
            guard let target = try S3Target(folder + rest, name: rest, s3.access) else { continue }
            done.append(try await get(name, to: .s3(target), on: cluster))
          } else {
            let file = try FileTarget(try path(of: rest), name: name, makesFolders: true)
            done.append(try await get(name, to: .file(file), on: cluster))
          }
        } catch let error as MobulaError
          where names.count > 1 && [.denied, .notFound, .corrupted].contains(error.code)
        {
          // The others come all the same.
          Log.error("\(name.printable) did not come: \(error.message)")
          hasFailed = true
        }
      }
      if json.json { try printJSON(done) }
      if hasFailed { throw ExitCode(1) }
    }
  }

  private func lastPart(_ name: String) -> String {
    String(decoding: name.utf8.split(separator: UInt8(ascii: "/")).last ?? [], as: UTF8.self)
  }

  /// The path of a file below the output's folder.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) for a name that would lead out of it.
  private func path(of rest: String) throws(MobulaError) -> String {
    let parts = rest.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map {
      String(decoding: $0, as: UTF8.self)
    }
    guard parts.allSatisfy({ !["", ".", ".."].contains($0) && !$0.utf8.contains(0) }) else {
      throw MobulaError(
        .invalidArgument, "\"\(id)\(rest)\" can't be a file's path below \(output): get it by itself, with -o FILE.")
    }
    return (output.hasSuffix("/") ? output : output + "/") + parts.joined(separator: "/")
  }

  /// Where an object is written.
  private enum Place {
    case file(FileTarget)
    case s3(S3Target)
  }

  private func get(_ id: String, to place: Place, on cluster: Cluster) async throws -> Outcome {
    let progress = quiet ? nil : Progress(id, total: nil)
    defer { progress?.finish(succeeded: false) }
    let end = timeout.map { ContinuousClock.now + .seconds($0) }
    let reference = try await object(id, on: cluster, progress)
    let watching = Task {
      while !Task.isCancelled {
        if let (verified, total) = try? await cluster.progress(of: reference.id), let total, verified < total {
          progress?.update(verified.bytes, of: total.bytes)
        }
        try await Task.sleep(for: .milliseconds(200))
      }
    }
    defer { watching.cancel() }
    let blob = try await reference.value(within: end.map { max($0 - .now, .milliseconds(1)) } ?? .seconds(600))
    watching.cancel()
    switch place {
    case .s3(let target):
      progress?.finish(succeeded: false)
      return .uploaded(
        try await target.upload(blob.count, title: id, printsNothing: json.json || quiet, showsProgress: !quiet) {
          range in
          blob.withUnsafeBytes { Array($0[range]) }
        })
    case .file(let file): return .written(try await write(blob, to: file, on: cluster, progress))
    }
  }

  /// What is to be got, once there is something of it.
  private func object(_ id: String, on cluster: Cluster, _ progress: Progress?) async throws -> ObjectRef<Blob> {
    let access = s3.access
    guard let timeout, S3Target.isS3(id) else {
      return try await S3OfHost.object(id, access: access, on: cluster, progress)
    }
    return try await S3OfHost.within(timeout, id) {
      try await S3OfHost.object(id, access: access, on: cluster, progress)
    }
  }

  private func write(_ blob: Blob, to file: FileTarget, on cluster: Cluster, _ progress: Progress?) async throws
    -> Written
  {
    let outcome: FileTarget.Outcome
    do { outcome = try await cluster.write(blob, to: file) { progress?.update($0.bytes, of: $1?.bytes) } } catch let
      error as MobulaError where error.code == .connectionClosed && file.isStandardOutput
    {
      // As a program ends that SIGPIPE ends: whoever closed the pipe needs no sentence.
      throw ExitCode(128 + SIGPIPE)
    }
    // Of many, each has its line below.
    if isPrefix { progress?.finish(succeeded: false) } else { progress?.finish() }
    if case .inPlace(let reason) = outcome {
      Log.write(STDERR_FILENO, "\(file.path) was written in place, not replaced at once: \(reason).\n")
    }
    if !json.json, !quiet, !file.isStandardOutput { print("\(ByteCount(blob.count)) in \(file.path.printable)") }
    return Written(output: file.path, size: blob.count)
  }
}
