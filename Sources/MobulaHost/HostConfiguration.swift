public import MobulaCore
public import MobulaStore
public import MobulaWire

/// What a host needs to know to start.
public struct HostConfiguration: Sendable {
  /// Who this host is: given, or made at random at the first start. Never the machine's id.
  public var host: HostID
  /// A name for people; the machine's, unless told otherwise.
  public var name: String
  public var head: Endpoint
  public var token: ClusterToken
  /// For connections to other hosts, and to the head; plain without.
  public var tls: ClusterTLS?
  /// Where its sockets are; must exist.
  public var directory: String
  /// The address that other hosts reach it at. Default: `127.0.0.1`.
  public var address: String
  /// The address that it listens at; `address`, when `nil`.
  public var listen: String?
  /// The most that its store may hold.
  public var capacity: ByteCount
  /// Folders for objects that have no room in memory.
  public var spillDirectories: [String] = []
  /// Where in S3 objects go that have no room in the folders either, as `s3://bucket/prefix`; `nil` for nowhere.
  public var spillURL: String?
  /// The S3 that has it; the environment's when `nil`.
  public var spillEndpoint: String?
  /// The share of the capacity in which free memory is kept warm, and in which it is reserved ahead; see `StoreConfiguration`.
  public var warmShare = 0.5
  public var spareShare = 0.02
  /// What people tell hosts apart by; `zone` says which are near each other.
  public var labels: [Name: Name] = [:]
  /// Where its identity is kept; `nil` where nobody knows.
  public var folder: FolderID?
  /// The most that it sends to other hosts and receives from them and from S3; `nil` for as fast as it goes.
  public var sendLimit: LinkRate?
  public var receiveLimit: LinkRate?
  /// Keeps the store's memory for when this process dies.
  public var keeper: KeeperConnection?
  /// Whether somebody waits to hear why this host can't work: then, and only then, it ends when something without
  /// the token answers in the head's place for 15 s, or when the head refuses it.
  public var isFirstStart = false

  public init(
    host: HostID, name: String, head: Endpoint, token: ClusterToken, directory: String,
    address: String = "127.0.0.1", capacity: ByteCount
  ) {
    self.host = host
    self.name = name
    self.head = head
    self.token = token
    self.directory = directory
    self.address = address
    self.capacity = capacity
  }
  /// What it says of itself when it connects.
  var hello: Hello {
    var hello = Hello(role: .host, name: name)
    hello.host = host
    return hello
  }
}
