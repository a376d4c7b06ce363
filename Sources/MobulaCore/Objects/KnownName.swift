/// What a host knows of a name.
package struct KnownName: Codable, Hashable, Sendable {
  /// How an object came to a name.
  package enum Kind: Codable, Hashable, Sendable {
    /// Somebody gave it.
    case given
    /// It is a URL, and the object what was found there by the claim of that number.
    case url(claim: UInt64)
    /// It is one version of a URL, and goes when the URL names a newer one.
    case version
  }

  /// What has the name.
  package var object: ObjectID
  /// How it came to it.
  package var kind: Kind

  /// Whether the name is a URL.
  package var isURL: Bool { if case .url = kind { true } else { false } }

  /// An object that came to a name so.
  package init(_ object: ObjectID, _ kind: Kind) {
    self.object = object
    self.kind = kind
  }
}
