public import MobulaCore

/// What the holder of a derived token is to the cluster. Open: a newer build may make tokens of a role that this one
/// has no name for, and which may do nothing here.
public struct TokenRole: RawRepresentable, Hashable, Sendable, Codable, CustomStringConvertible {
  public let rawValue: String

  public init(rawValue: String) { self.rawValue = rawValue }

  /// Registers a pod, and makes the tokens of jobs.
  public static let pod = Self(rawValue: "pod")
  /// Works for one job: its workers have it, and its driver, to call them.
  public static let worker = Self(rawValue: "worker")
  /// Starts jobs, and ends its own.
  public static let driver = Self(rawValue: "driver")
  /// The command line: everything with objects and hosts, and no work.
  public static let tool = Self(rawValue: "tool")
  /// Sees everything, and changes nothing.
  public static let viewer = Self(rawValue: "viewer")

  /// Those that this build knows.
  public static let all: [TokenRole] = [.viewer, .tool, .driver, .worker, .pod]

  /// The roles of the tokens that can be made from one of this role, which have no right that it lacks.
  var makes: Set<TokenRole> {
    switch self {
    case .pod: [.pod, .worker]
    case .tool: [.tool, .viewer]
    case .driver: [.driver, .viewer]
    default: [self]
    }
  }

  /// As sentences have it: `a driver's token`.
  var possessive: String { "\(rawValue.prefix(20))'s" }

  public var description: String { rawValue }
}

/// What a derived token is good for: one step on the way from the cluster token to it.
///
/// A server decides by these alone, without a list of tokens; so what it does not understand it refuses.
public struct TokenClaims: Hashable, Sendable {
  public var role: TokenRole
  /// The job that a worker's token is of, and ends with.
  public var job: JobID?
  /// Seconds since 1970 from which on it is no longer taken. Only this looks at a clock.
  public var expires: Int64?
  /// What people tell tokens apart by.
  public var name: String?

  /// Bytes of a name.
  public static let longestName = 64

  public init(role: TokenRole, job: JobID? = nil, expires: Int64? = nil, name: String? = nil) {
    self.role = role
    self.job = job
    self.expires = expires
    self.name = name
  }
}

extension TokenClaims: Codable {
  private struct Key: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }

    static let role = Key(stringValue: "role")
    static let job = Key(stringValue: "job")
    static let expires = Key(stringValue: "expires")
    static let name = Key(stringValue: "name")
    static let known: Set<String> = ["role", "job", "expires", "name"]
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Key.self)
    if let key = container.allKeys.first(where: { !Key.known.contains($0.stringValue) }) {
      // A restriction that a newer build knows; passing over it would give more than its maker did.
      throw DecodingError.dataCorruptedError(
        forKey: key, in: container, debugDescription: "this build does not know the claim \(key.stringValue.prefix(20))"
      )
    }
    role = try container.decode(TokenRole.self, forKey: .role)
    job = try container.decodeIfPresent(JobID.self, forKey: .job)
    expires = try container.decodeIfPresent(Int64.self, forKey: .expires)
    name = try container.decodeIfPresent(String.self, forKey: .name)
  }

  /// The bytes are what keys are made from: head and pods make those of the same job apart from each other.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(role, forKey: .role)
    try container.encodeIfPresent(job, forKey: .job)
    try container.encodeIfPresent(expires, forKey: .expires)
    try container.encodeIfPresent(name, forKey: .name)
  }
}
