public import MobulaCore

/// How a process's connection to the head, or to its host, is, for people.
public struct LinkStatus: Codable, Hashable, Sendable {
  /// Open: a newer process may say something that this build has no name for.
  public struct State: RawRepresentable, Codable, Hashable, Sendable {
    public let rawValue: String

    public init(rawValue: String) { self.rawValue = rawValue }

    public static let connected = Self(rawValue: "connected")
    /// Nobody answers; it is tried again.
    public static let away = Self(rawValue: "away")
    /// Something answers that has not proved that it has the cluster's token; it is tried again.
    public static let unproven = Self(rawValue: "unproven")
    /// The peer has refused this process for good.
    public static let refused = Self(rawValue: "refused")
  }

  public var endpoint: Endpoint
  public var state: State
  /// Why there is no connection, in a sentence; `nil` when there is one, and before the first attempt has ended.
  public var problem: String?
  /// For how many seconds it has been so.
  public var seconds: Double

  public init(endpoint: Endpoint, state: State, problem: String? = nil, seconds: Double) {
    self.endpoint = endpoint
    self.state = state
    self.problem = problem
    self.seconds = seconds
  }
}
