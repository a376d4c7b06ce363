/// `name` says what and which version, as in `s3://bucket/key#etag`.
package struct ClaimRequest: Codable, Sendable {
  package var host: HostID
  package var name: Name
  package var geometry: ChunkGeometry
  /// What its bytes are compared with by those who receive them from hosts that read them.
  package var checksum: ExpectedChecksum?
  /// Whether the answer is to give the first part to read, if one is free. Default: false.
  package var takesPart: Bool?

  package init(
    host: HostID, name: Name, geometry: ChunkGeometry, checksum: ExpectedChecksum? = nil, takesPart: Bool? = nil
  ) {
    self.takesPart = takesPart
    self.checksum = checksum
    self.host = host
    self.name = name
    self.geometry = geometry
  }
}

package struct ClaimReply: Codable, Sendable {
  package var object: ObjectID
  /// Whether the asking host is to read parts of it; otherwise it is there, or enough others do.
  package var fills: Bool
  /// Grows with every claim of the cluster: of two versions of one URL, the one claimed later is the newer.
  package var number: UInt64
  /// The chunks that are the asking host's to read, as `PartReply.chunks`.
  package var part: Range<Int>?
  /// A host that has all of the object, or reads all of it: for one that asked for a part and got none.
  package var source: TransferPeer?

  package init(
    object: ObjectID, fills: Bool, number: UInt64, part: Range<Int>? = nil, source: TransferPeer? = nil
  ) {
    self.part = part
    self.source = source
    self.object = object
    self.fills = fills
    self.number = number
  }
}

/// Claims that a host makes at the same time.
package struct ClaimsRequest: Codable, Sendable {
  /// Of one request, at most.
  package static let most = 64

  package var claims: [ClaimRequest]

  package init(claims: [ClaimRequest]) { self.claims = claims }
}

package struct ClaimsReply: Codable, Sendable {
  package struct Answer: Codable, Sendable {
    /// `nil` for one that was refused: made alone, it is told why.
    package var claim: ClaimReply?

    package init(_ claim: ClaimReply?) { self.claim = claim }
  }

  /// In the order of the claims.
  package var answers: [Answer]

  package init(answers: [Answer]) { self.answers = answers }
}

package struct PartRequest: Codable, Sendable {
  package var host: HostID
  package var object: ObjectID
  /// A head that was restarted does not know it.
  package var geometry: ChunkGeometry
  /// Chunks that it was given before, and has now.
  package var finished: Range<Int>?
  /// Whether it is to be given others.
  package var wantsMore: Bool

  package init(host: HostID, object: ObjectID, geometry: ChunkGeometry, finished: Range<Int>?, wantsMore: Bool = true) {
    self.wantsMore = wantsMore
    self.host = host
    self.object = object
    self.geometry = geometry
    self.finished = finished
  }
}

package struct PartReply: Codable, Sendable {
  /// Chunks to read; `nil` when nothing is left to be read by this host.
  package var chunks: Range<Int>?

  package init(chunks: Range<Int>?) { self.chunks = chunks }
}

package struct DamagedObject: Codable, Sendable {
  package var host: HostID
  package var object: ObjectID
  /// One sentence: what all that ask for it are told.
  package var message: String

  package init(host: HostID, object: ObjectID, message: String) {
    self.host = host
    self.object = object
    self.message = message
  }
}
