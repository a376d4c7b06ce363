import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import MobulaWire

/// The directory in which a host keeps its sockets, its token, its logs and what it was started with.
struct RunDirectory {
  let path: String

  var tokenFile: String { ClusterOptions.tokenFile(in: path) }
  var configurationFile: String { path + "/configuration.json" }
  var lockFile: String { path + "/" + Self.lockName }
  static let lockName = "supervisor.pid"
  var logFile: String { path + "/logs/mobula.log" }

  /// The longest name of a socket in it, with its slash, in bytes.
  private static let socketName = "/pod-00000000.sock".utf8.count

  /// Makes the directory, for this user alone.
  ///
  /// - Throws: `MobulaError`: `inputOutput` when it can't be made, `denied` when it is not this user's, or others may
  ///   write to it, `invalidArgument` when sockets in it would have too long a path.
  func create() throws(MobulaError) {
    guard path.hasPrefix("/") else {
      throw MobulaError(
        .inputOutput, "The current folder is gone: change to another, or give a whole path with --directory.")
    }
    // A socket's address has room for so much.
    let limit = 107 - Self.socketName
    guard path.utf8.count <= limit, !path.utf8.contains(0) else {
      throw MobulaError(
        .invalidArgument,
        "The directory \(path) has a path of \(path.utf8.count) bytes, and sockets in it allow \(limit): choose a shorter one with --directory."
      )
    }
    try OwnFolder.make(path, "--directory")
    try OwnFolder.make(path + "/logs", "--directory")
  }

  func write(_ configuration: StartConfiguration) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    try writeOutput(try encoder.encode(configuration), to: configurationFile)
  }

  func readConfiguration() throws -> StartConfiguration {
    guard let data = try? Data(contentsOf: URL(filePath: configurationFile)) else {
      throw MobulaError(.notFound, "Nothing was started in \(path): run `mobula start` first.")
    }
    do { return try JSONDecoder().decode(StartConfiguration.self, from: data) } catch {
      throw MobulaError(.corrupted, "\(configurationFile) can't be read: remove it and run `mobula start` again.")
    }
  }

  /// The cluster's token, as it is in its file from now on; what it is replaced with goes into the state directory, too.
  func token() throws(MobulaError) -> ClusterToken {
    let state = (try? readConfiguration())?.state.map { StateDirectory(path: $0).tokenFile }
    return try ClusterToken.following(tokenFile, copies: state.map { [$0] } ?? [])
  }

  /// `nil` when the host was started without.
  func tls() throws(MobulaError) -> ClusterTLS? { try ClusterOptions.tls(in: path) }

  /// Takes the lock that a supervisor keeps while it runs.
  ///
  /// - Returns: its descriptor, or `nil` when another supervisor has it.
  func lock() throws(MobulaError) -> CInt? {
    let descriptor = try systemCall("\(lockFile) can't be opened") {
      open(lockFile, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    }
    if flock(descriptor, LOCK_EX | LOCK_NB) == 0 {
      let text = Array("\(getpid())\n".utf8)
      ftruncate(descriptor, 0)
      _ = pwrite(descriptor, text, text.count, 0)
      return descriptor
    }
    close(descriptor)
    return nil
  }

  /// Removes the sockets of processes that were killed, once none runs here.
  func removeSockets() {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    for name in names where name.hasSuffix(".sock") { unlink(path + "/" + name) }
  }

  /// The process id of the supervisor that runs here.
  func supervisor() -> Int32? {
    let descriptor = open(lockFile, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    // Whoever runs has the lock; a stale file has none.
    if flock(descriptor, LOCK_SH | LOCK_NB) == 0 { return nil }
    var buffer = [UInt8](repeating: 0, count: 16)
    let count = read(descriptor, &buffer, buffer.count)
    guard count > 0 else { return nil }
    return Int32(String(decoding: buffer[..<count], as: UTF8.self).filter(\.isNumber))
  }
}

/// What `mobula start` was asked for, kept for the processes that it starts.
struct StartConfiguration: Codable, Sendable {
  struct PodEntry: Sendable {
    var pod: PodID
    var name: Name
    var resources: Resources
  }

  /// Whether the head runs here.
  var isHead: Bool
  var head: Endpoint
  var cluster: ClusterID?
  var host: HostID
  var name: String
  /// The address that other hosts reach this one at.
  var address: String
  var capacity: ByteCount
  /// Folders, and at most one address in S3.
  var spill: [String]
  /// Shares of the capacity.
  var warm: Double
  var spare: Double
  var pods: [PodEntry]
  // Absent from what an older version wrote.
  var labels: [Name: Name]?
  var sendLimit: LinkRate?
  var receiveLimit: LinkRate?
  var spillEndpoint: String?
  /// The state directory.
  var state: String?
  /// What is bound, where that is not `address`.
  var listen: String?

  /// Where the head is for other machines.
  var told: Endpoint { if isHead, case .tcp(_, let port) = head { .tcp(host: address, port: port) } else { head } }
  /// Where the head listens, when it runs here.
  var headListen: Endpoint {
    if let listen, case .tcp(_, let port) = head { .tcp(host: listen, port: port) } else { head }
  }

  /// Whether a place to spill to is one in S3.
  static func isS3(_ place: String) -> Bool { place.lowercased().hasPrefix("s3://") }
}

extension StartConfiguration.PodEntry: Codable {
  private enum CodingKeys: String, CodingKey { case pod, name, resources, amounts }

  /// One resource: a list of these keeps apart what differs in its Unicode form alone, as the keys of an object in JSON
  /// are not kept when they are read.
  private struct Entry: Codable {
    var name: Name
    var amount: ResourceAmount
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    pod = try container.decode(PodID.self, forKey: .pod)
    name = try container.decode(Name.self, forKey: .name)
    if let entries = try container.decodeIfPresent([Entry].self, forKey: .amounts) {
      resources = Resources(Dictionary(entries.map { ($0.name, $0.amount) }) { first, _ in first })
    } else {
      // As an older version wrote it.
      resources = try container.decode(Resources.self, forKey: .resources)
    }
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(pod, forKey: .pod)
    try container.encode(name, forKey: .name)
    let entries = resources.amounts.sorted { $0.key < $1.key }.map { Entry(name: $0.key, amount: $0.value) }
    try container.encode(entries, forKey: .amounts)
  }
}
