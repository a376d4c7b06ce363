/// How long the two sides of a bulk connection wait for each other.
public struct TransferTimeouts: Hashable, Sendable {
  /// For a connection to be made and both sides to have authenticated. Default: 10 s.
  public var connect: Duration
  /// How long a receiver goes on with a source that sends nothing, not even that it waits. Default: 10 s.
  public var stall: Duration
  /// How long a sender goes on with a receiver that takes, requests and acknowledges nothing. Default: 30 s.
  public var idle: Duration
  /// How often a sender whose own replica lacks the next chunk says that it is alive;
  /// well below `stall`. Default: 1 s.
  public var keepalive: Duration

  public init(
    connect: Duration = .seconds(10), stall: Duration = .seconds(10), idle: Duration = .seconds(30),
    keepalive: Duration = .seconds(1)
  ) {
    self.connect = connect
    self.stall = stall
    self.idle = idle
    self.keepalive = keepalive
  }
}
