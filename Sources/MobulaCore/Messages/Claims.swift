/// `name` says what and which version, as in `s3://bucket/key#etag`.
public struct ClaimRequest: Codable, Sendable {
  public var host: HostID
  public var name: Name
  public var geometry: ChunkGeometry
  /// What its bytes are compared with by those who receive them from hosts that read them.
  public var checksum: ExpectedChecksum?

  public init(host: HostID, name: Name, geometry: ChunkGeometry, checksum: ExpectedChecksum? = nil) {
    self.checksum = checksum
    self.host = host
    self.name = name
    self.geometry = geometry
  }
}

public struct ClaimReply: Codable, Sendable {
  public var object: ObjectID
  /// Whether the asking host is to read parts of it; otherwise it is there, or enough others do.
  public var fills: Bool
  /// Grows with every claim of the cluster: of two versions of one URL, the one claimed later is the newer.
  public var number: UInt64

  public init(object: ObjectID, fills: Bool, number: UInt64) {
    self.object = object
    self.fills = fills
    self.number = number
  }
}

public struct PartRequest: Codable, Sendable {
  public var host: HostID
  public var object: ObjectID
  /// A head that was restarted does not know it.
  public var geometry: ChunkGeometry
  /// Chunks that it was given before, and has now.
  public var finished: Range<Int>?
  /// Whether it is to be given others.
  public var wantsMore: Bool

  public init(host: HostID, object: ObjectID, geometry: ChunkGeometry, finished: Range<Int>?, wantsMore: Bool = true) {
    self.wantsMore = wantsMore
    self.host = host
    self.object = object
    self.geometry = geometry
    self.finished = finished
  }
}

public struct PartReply: Codable, Sendable {
  /// Chunks to read; `nil` when nothing is left to be read by this host.
  public var chunks: Range<Int>?

  public init(chunks: Range<Int>?) { self.chunks = chunks }
}

public struct DamagedObject: Codable, Sendable {
  public var host: HostID
  public var object: ObjectID
  /// One sentence: what all that ask for it are told.
  public var message: String

  public init(host: HostID, object: ObjectID, message: String) {
    self.host = host
    self.object = object
    self.message = message
  }
}
