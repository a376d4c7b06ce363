package import MobulaCore

/// A host is to have an object, although no process of it asks for it.
package struct BringOrder: Codable, Sendable {
  package var object: ObjectID
  package var host: HostID
  package var priority: TransferPriority

  package init(object: ObjectID, host: HostID, priority: TransferPriority) {
    self.object = object
    self.host = host
    self.priority = priority
  }
}

package struct BringOutcome: Codable, Sendable {
  /// Bytes that came into the host's store for this order; 0 when the object was there, or on its way.
  package var bytesCopied: Int

  package init(bytesCopied: Int) { self.bytesCopied = bytesCopied }
}

/// How much of an object these hosts have.
package struct ProgressQuestion: Codable, Sendable {
  package var object: ObjectID
  package var hosts: [HostID]

  package init(object: ObjectID, hosts: [HostID]) {
    self.object = object
    self.hosts = hosts
  }
}

/// How much of an object one host has.
package struct ReplicaProgress: Codable, Sendable {
  package var host: HostID
  /// Bytes in verified chunks.
  package var verified: ByteCount
  /// `nil` while nothing of the object is there.
  package var total: ByteCount?
  /// What the host waits for, in a sentence, where that takes longer than it should.
  package var waiting: String?

  package init(host: HostID, verified: ByteCount, total: ByteCount?) {
    self.host = host
    self.verified = verified
    self.total = total
  }
}
