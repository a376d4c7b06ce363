/// A call that a peer answers once, known on both sides by its name.
public struct RPCMethod<Request: Codable & Sendable, Response: Codable & Sendable>: Sendable {
  public let name: String

  /// - Parameter name: such as `store.pin`; 1 to 255 bytes.
  public init(_ name: String) {
    precondition(1...255 ~= name.utf8.count, "a method's name has 1 to 255 bytes")
    self.name = name
  }
}

/// A call that a peer answers with a sequence of elements, known on both sides by its name.
public struct RPCStreamMethod<Request: Codable & Sendable, Element: Codable & Sendable>: Sendable {
  public let name: String

  /// - Parameter name: such as `head.events`; 1 to 255 bytes.
  public init(_ name: String) {
    precondition(1...255 ~= name.utf8.count, "a method's name has 1 to 255 bytes")
    self.name = name
  }
}

/// What a peer is told, in order with all that it is told, and does not answer; known on both sides by its name.
package struct RPCNotice<Message: Codable & Sendable>: Sendable {
  package let name: String

  /// - Parameter name: such as `worker.push`; 1 to 255 bytes.
  package init(_ name: String) {
    precondition(1...255 ~= name.utf8.count, "a notice's name has 1 to 255 bytes")
    self.name = name
  }
}

/// A request or a response that says nothing.
public struct Empty: Codable, Sendable, Hashable {
  public init() {}
}
