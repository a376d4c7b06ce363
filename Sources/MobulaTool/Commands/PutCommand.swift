import ArgumentParser
import Mobula
import MobulaCore
import MobulaS3
import MobulaTerminal

struct PutCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "put", abstract: "Put files into the store of this host, under names, or into S3.",
    discussion: """
      A folder is put as all files in it, each under its path. What has its name already, with the same content, is not \
      put again; a name that other content has is an error, unless --replace is given. In S3 an object is replaced, as S3 \
      does it.

      \(S3Target.discussion)

      Examples:
        mobula put model.safetensors
        mobula put weights.bin --name whisper/weights
        mobula put model/ tokenizer.json
        mobula put weights.bin s3://models/whisper/
        mobula put model/ s3://models/whisper/ --s3-endpoint http://10.0.0.9:8333
        tar c folder | mobula put - --name folder.tar
      """)

  @Argument(
    help: ArgumentHelp(
      "Files and folders; - for standard input. The last may be s3://BUCKET/KEY, or s3://BUCKET/PREFIX/ for the names below it.",
      valueName: "file")) var files: [String]
  @Option(help: "The object's name; with a / at its end, what the names begin with. Default: the file's.") var name:
    String?
  @Flag(help: "Take the name from another object that has it.") var replace = false
  @OptionGroup var s3: S3Options
  @OptionGroup var json: JSONFlag
  @OptionGroup var quiet: QuietFlag
  @OptionGroup var directory: DirectoryOption

  private var destination: String? { files.count > 1 && S3Target.isS3(files.last!) ? files.last : nil }
  private var sources: [String] { destination == nil ? files : files.dropLast() }

  func validate() throws {
    for file in sources where S3Target.isS3(file) {
      throw ValidationError("\"\(file)\" is in S3: `mobula fetch` brings it into the cluster.")
    }
    if sources.contains("-"), name == nil || name!.hasSuffix("/") {
      guard let destination, destination.split(separator: "/").count > 2, !destination.hasSuffix("/") else {
        throw ValidationError("Standard input has no name of its own: give one with --name.")
      }
    }
    for file in files { try S3Target.check(file) }
    try s3.check(for: files)
    if let destination, let name, !destination.hasSuffix("/"), try !S3URL(destination).key.isEmpty {
      throw ValidationError(
        "\(destination.printable) is a whole key: leave \"--name \(name.printable)\" away, or give a prefix with a / at its end."
      )
    }
    if let name, let objection = ReservedNames.objection(to: name) {
      let hint = S3Target.isS3(name) ? ". To upload, give \(name.printable) behind the files" : ""
      throw ValidationError("--name \(name.printable): \(objection)\(hint).")
    }
    if name == "" { throw ValidationError("--name takes a name, which can't be empty.") }
    if replace, destination != nil { throw ValidationError("--replace is for the store: S3 replaces in any case.") }
    if quiet.quiet, json.json { throw ValidationError("Give --quiet or --json, not both.") }
  }

  private struct Put: Encodable {
    var name: String
    var object: String
  }

  func run() async throws {
    Interruption.begin()
    if let destination { return try await upload(to: destination) }
    let items = try asUsage { try PutItem.all(sources, name: name, isBelowFolder: false) }
    try await withCluster(directory.options) { cluster in
      var done: [Put] = []
      func show() throws {
        // One file's as an object, as it always was; of several, in an array.
        if done.count == 1, items.count == 1 { try printJSON(done[0]) } else { try printJSON(done) }
      }
      // What was put is there, whatever comes of the rest.
      func shown<Value>(_ body: () async throws -> Value) async throws -> Value {
        do { return try await body() } catch {
          if json.json, !done.isEmpty { try show() }
          throw error
        }
      }
      for item in items {
        let progress = quiet.progress(item.path == "-" ? item.name : item.path)
        defer { progress?.finish(succeeded: false) }
        let (reference, wasThere) = try await shown {
          try await cluster.put(file: item.path, name: item.name, replaces: replace) {
            progress?.update($0.bytes, of: $1?.bytes)
          }
        }
        progress?.finish(saying: wasThere ? "\(item.name): is there already, with this content" : nil)
        done.append(Put(name: item.name, object: "\(reference.id)"))
        if quiet.quiet { print(reference.id) } else if !json.json { print("\(reference.id)  \(item.name.printable)") }
      }
      if json.json { try show() }
    }
  }

  private func upload(to destination: String) async throws {
    let items = try asUsage {
      try PutItem.all(sources, name: name ?? (sources == ["-"] ? "-" : nil), isBelowFolder: true)
    }
    guard items.count == 1 || destination.hasSuffix("/") || destination.split(separator: "/").count == 2 else {
      throw ValidationError("\(items.count) files can't all be \(destination): give a prefix, with a / at its end.")
    }
    var done: [S3Target.Uploaded] = []
    for item in items {
      guard let target = try S3Target(destination, name: item.name, s3.access) else { return }
      let uploaded = try await target.upload(
        file: item.path, printsNothing: json.json || quiet.quiet, showsProgress: !quiet.quiet)
      if quiet.quiet { print(uploaded.url.printable) }
      done.append(uploaded)
    }
    guard json.json else { return }
    if done.count == 1 { try printJSON(done[0]) } else { try printJSON(done) }
  }
}
