import Glibc

/// How long an actor that may be started again goes on where nobody hears from the head: less than the head waits before
/// it starts it elsewhere (`ClusterSettings.actorFence`).
package enum ActorFence {
  /// How often a pod asks the head whether it is there.
  package static let interval = Duration.seconds(5)
  /// How long ago the head may have been heard of. 45 s.
  package static let limit = Duration.seconds(45)

  /// Whether the head was heard of so long ago that nothing is to be begun.
  package static func isOver(heard: UInt64, now: UInt64) -> Bool {
    now > heard && Duration.nanoseconds(Int64(clamping: now - heard)) >= limit
  }
}

/// Nanoseconds since this machine was started, while it slept, too: what a suspended machine did not notice counts.
package func bootNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_BOOTTIME, &time)
  return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}
