package import MobulaCore

/// How much an exchange does at once. Each has a default that fits; none need be set.
package struct ExchangeLimits: Hashable, Sendable {
  /// Connections at once. Default: 8.
  package var lanes = 8
  /// Connections to one host, where it is the only one. Default: 4.
  package var lanesPerHost = 4
  /// Bytes asked for at once, over all lanes. Default: 8 MiB, and at least eight chunks.
  package var bytesInFlight = 8_388_608
  /// Chunks asked of a lane at once, at least. Default: 1.
  package var smallestWindow = 1
  /// Among how many chunks a lane chooses. Default: 32.
  package var choice = 32
  /// How often `tick` is to be called. Default: 50 ms.
  package var tick = Duration.milliseconds(50)
  /// How long to wait before the head is asked again after it had no news. Default: 1 s.
  package var askInterval = Duration.seconds(1)
  /// So many connections of a host that end during the handshake, one after the other, mean that it is busy.
  package var resets = 10
  /// How long a host that was not to be reached is left alone, the first time. Default: 250 ms.
  package var shortestSetback = Duration.milliseconds(250)
  /// How long all lanes together may have nothing that is missing before one is left for another host. Default: 200 ms.
  package var uselessInterval = Duration.milliseconds(200)
  /// How long no chunk need come before an object without a complete replica counts as lost. Default: 10 s.
  package var patience = Duration.seconds(10)

  package init() {}

  package func chunksInFlight(_ geometry: ChunkGeometry) -> Int { max(8, bytesInFlight / geometry.chunkSize) }
}

extension Duration {
  /// Seconds, as a number.
  package var inSeconds: Double { self / .seconds(1) }
}
