public struct NameRequest: Codable, Sendable {
  public var name: Name
  public var object: ObjectID
  /// The number of the claim when the name is a URL: it is taken from a version claimed before, and stays with one
  /// claimed later. Without it the name must be free.
  public var claim: UInt64?

  public init(name: Name, object: ObjectID, claim: UInt64? = nil) {
    self.name = name
    self.object = object
    self.claim = claim
  }
}

public struct NameReply: Codable, Sendable {
  /// Whether the object has the name now; false where a version that was claimed later has it.
  public var isNamed: Bool

  public init(isNamed: Bool) { self.isNamed = isNamed }
}

/// A name, or the text form of an `ObjectID`.
public struct ResolveRequest: Codable, Sendable {
  public var nameOrID: Name

  public init(_ nameOrID: Name) { self.nameOrID = nameOrID }
}

public struct WaitRequest: Codable, Sendable {
  public var objects: [ObjectID]
  public var count: Int
  /// Seconds.
  public var timeout: Double

  public init(objects: [ObjectID], count: Int, timeout: Double) {
    self.objects = objects
    self.count = count
    self.timeout = timeout
  }
}

public struct WaitReply: Codable, Sendable {
  public var ready: [ObjectID]

  public init(ready: [ObjectID]) { self.ready = ready }
}
