public import MobulaCore

/// What both sides of a connection may set for themselves.
public struct RPCOptions: Sendable {
  /// The longest frame's body, sent or received. 16 MiB.
  public var maximumFrame = Frame.defaultLimit
  /// From accepting or connecting until the handshake must be through. 10 seconds.
  public var handshakeTimeout: Duration = .seconds(10)
  /// A peer that was silent for so long is pinged, again and again. 5 seconds.
  public var pingInterval: Duration = .seconds(5)
  /// A peer that was silent for so long (up to one `pingInterval` more) is given up. 15 seconds.
  public var silenceLimit: Duration = .seconds(15)
  /// Elements that a stream's sender may be ahead of its reader. 64.
  public var streamWindow = 64

  public init() {}
}
