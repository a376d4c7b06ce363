internal import Glibc
public import MobulaCore

/// What a process is in its cluster. Open: a newer peer may have a role that this build has no name for.
public struct PeerRole: RawRepresentable, Hashable, Sendable, Codable, CustomStringConvertible {
  public let rawValue: String

  public init(rawValue: String) { self.rawValue = rawValue }

  /// The control plane.
  public static let head = Self(rawValue: "head")
  /// A compute instance's store and transfer.
  public static let host = Self(rawValue: "host")
  public static let pod = Self(rawValue: "pod")
  public static let worker = Self(rawValue: "worker")
  /// A user's program.
  public static let driver = Self(rawValue: "driver")
  /// The command line.
  public static let tool = Self(rawValue: "tool")

  public var description: String { rawValue }
}

/// How a process introduces itself on every connection, RPC or bulk.
public struct Hello: Codable, Sendable, Hashable {
  /// The newest version of frames, handshake and messages that this build speaks.
  public static let currentWireVersion = 3
  /// The oldest one, that of the build before.
  public static let oldestWireVersion = 2

  /// The oldest version that the process speaks: builds that speak a single one look for theirs here.
  public var wireVersion: Int
  /// The newest one; `nil` from a build that speaks a single one.
  public var newestWireVersion: Int?
  public var role: PeerRole
  /// What people call the process, such as its host's name.
  public var name: String
  /// The cluster, once known; two that are known must be the same.
  public var cluster: ClusterID?
  /// The host that the process runs on, if it has one.
  public var host: HostID?
  /// Counts the host's registrations: calls of an older incarnation are refused.
  public var incarnation: UInt64
  /// Counts the store's restarts on that host.
  public var epoch: UInt64
  /// The process's id on its own host.
  public var process: Int32
  /// SHA-256 of the executable, where work needs the same build on both sides.
  public var build: String?
  /// Notices that it takes of those that not every build knows, by their names; `nil` for none.
  package var notices: [String]?
  /// What a connecting process's token was narrowed by, each step as the bytes that its key was made from; `nil` with
  /// the cluster token.
  package internal(set) var claims: [ByteString]?

  public init(
    role: PeerRole, name: String, cluster: ClusterID? = nil, host: HostID? = nil, incarnation: UInt64 = 0,
    epoch: UInt64 = 0, process: Int32 = currentProcess(), build: String? = nil,
    wireVersion: Int = Hello.oldestWireVersion, newestWireVersion: Int? = Hello.currentWireVersion
  ) {
    self.wireVersion = wireVersion
    self.newestWireVersion = newestWireVersion
    self.role = role
    self.name = name
    self.cluster = cluster
    self.host = host
    self.incarnation = incarnation
    self.epoch = epoch
    self.process = process
    self.build = build
  }

  /// As errors call the process: `host alpha`. Cut short, since it comes from outside.
  public var title: String { "\(role.rawValue.prefix(20)) \(name.prefix(80))" }
}

/// This process's id.
public func currentProcess() -> Int32 { getpid() }
