package struct NameRequest: Codable, Sendable {
  package var name: Name
  package var object: ObjectID
  /// The number of the claim when the name is a URL: it is taken from a version claimed before, and stays with one
  /// claimed later. Without it the name must be free.
  package var claim: UInt64?

  package init(name: Name, object: ObjectID, claim: UInt64? = nil) {
    self.name = name
    self.object = object
    self.claim = claim
  }
}

package struct NameReply: Codable, Sendable {
  /// Whether the object has the name now; false where a version that was claimed later has it.
  package var isNamed: Bool

  package init(isNamed: Bool) { self.isNamed = isNamed }
}

/// Names that a host gives at the same time; at most `ClaimsRequest.most`.
package struct NamesRequest: Codable, Sendable {
  package var names: [NameRequest]

  package init(names: [NameRequest]) { self.names = names }
}

package struct NamesReply: Codable, Sendable {
  package struct Answer: Codable, Sendable {
    /// `nil` for one that was refused.
    package var name: NameReply?

    package init(_ name: NameReply?) { self.name = name }
  }

  /// In the order of the names.
  package var answers: [Answer]

  package init(answers: [Answer]) { self.answers = answers }
}

/// A name, or the text form of an `ObjectID`.
package struct ResolveRequest: Codable, Sendable {
  package var nameOrID: Name

  package init(_ nameOrID: Name) { self.nameOrID = nameOrID }
}

package struct WaitRequest: Codable, Sendable {
  package var objects: [ObjectID]
  package var count: Int
  /// Seconds.
  package var timeout: Double

  package init(objects: [ObjectID], count: Int, timeout: Double) {
    self.objects = objects
    self.count = count
    self.timeout = timeout
  }
}

package struct WaitReply: Codable, Sendable {
  package var ready: [ObjectID]

  package init(ready: [ObjectID]) { self.ready = ready }
}
