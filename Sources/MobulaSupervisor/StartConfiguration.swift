package import MobulaCore

/// What `mobula start` was asked for, kept for the processes that it starts.
package struct StartConfiguration: Codable, Sendable {
  package struct PodEntry: Sendable {
    package var pod: PodID
    package var name: Name
    package var resources: Resources

    package init(pod: PodID, name: Name, resources: Resources) {
      self.pod = pod
      self.name = name
      self.resources = resources
    }
  }

  /// Whether the head runs here.
  package var isHead: Bool
  package var head: Endpoint
  package var cluster: ClusterID?
  package var host: HostID
  package var name: String
  /// The address that other hosts reach this one at.
  package var address: String
  package var capacity: ByteCount
  /// Folders, and at most one address in S3.
  package var spill: [String]
  /// Shares of the capacity.
  package var warm: Double
  package var spare: Double
  package var pods: [PodEntry]
  // Absent from what an older version wrote.
  package var labels: [Name: Name]?
  package var sendLimit: LinkRate?
  package var receiveLimit: LinkRate?
  package var spillEndpoint: String?
  /// The state directory.
  package var state: String?

  /// Which folder the state folder is; `nil` when it is not there.
  package var stateFolder: FolderID? { state.flatMap { FolderID(of: $0) } }
  /// What is bound, where that is not `address`.
  package var listen: String?

  package init(
    isHead: Bool,
    head: Endpoint,
    cluster: ClusterID?,
    host: HostID,
    name: String,
    address: String,
    capacity: ByteCount,
    spill: [String],
    warm: Double,
    spare: Double,
    pods: [PodEntry],
    labels: [Name: Name]? = nil,
    sendLimit: LinkRate? = nil,
    receiveLimit: LinkRate? = nil,
    spillEndpoint: String? = nil,
    state: String? = nil,
    listen: String? = nil
  ) {
    self.isHead = isHead
    self.head = head
    self.cluster = cluster
    self.host = host
    self.name = name
    self.address = address
    self.capacity = capacity
    self.spill = spill
    self.warm = warm
    self.spare = spare
    self.pods = pods
    self.labels = labels
    self.sendLimit = sendLimit
    self.receiveLimit = receiveLimit
    self.spillEndpoint = spillEndpoint
    self.state = state
    self.listen = listen
  }

  /// Where the head is for other machines.
  package var told: Endpoint {
    if isHead, case .tcp(_, let port) = head { .tcp(host: address, port: port) } else { head }
  }
  /// Where the head listens, when it runs here.
  package var headListen: Endpoint {
    if let listen, case .tcp(_, let port) = head { .tcp(host: listen, port: port) } else { head }
  }

  /// Whether a place to spill to is one in S3.
  package static func isS3(_ place: String) -> Bool { place.lowercased().hasPrefix("s3://") }
}

extension StartConfiguration.PodEntry: Codable {
  private enum CodingKeys: String, CodingKey { case pod, name, resources, amounts }

  /// One resource: a list of these keeps apart what differs in its Unicode form alone, as the keys of an object in JSON
  /// are not kept when they are read.
  private struct Entry: Codable {
    var name: Name
    var amount: ResourceAmount
  }

  package init(from decoder: any Decoder) throws {
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

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(pod, forKey: .pod)
    try container.encode(name, forKey: .name)
    let entries = resources.amounts.sorted { $0.key < $1.key }.map { Entry(name: $0.key, amount: $0.value) }
    try container.encode(entries, forKey: .amounts)
  }
}
