internal import Glibc
internal import MobulaCore

/// A value behind a lock, with threads that can block until it changes.
///
/// `@unchecked Sendable`: `value` is touched under `mutex` only, and the two
/// pthread objects stay at one address from `init` to `deinit`.
/// (`Synchronization.Mutex` has no condition to wait for.)
final class Monitor<Value: Sendable>: @unchecked Sendable {
  private var value: Value
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init(_ value: Value) {
    self.value = value
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func read<Result>(_ body: (Value) -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return body(value)
  }

  /// Changes the value and wakes every waiter to look at it.
  func update<Result>(_ body: (inout Value) -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer {
      pthread_cond_broadcast(condition)
      pthread_mutex_unlock(mutex)
    }
    return body(&value)
  }

  /// Blocks the calling thread until `body` gives a result; `nil` once `deadline` has passed.
  func wait<Result>(
    until deadline: ContinuousClock.Instant, for body: (Value) throws(MobulaError) -> Result?
  ) throws(MobulaError) -> Result? {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while true {
      if let result = try body(value) { return result }
      let left = ContinuousClock.now.duration(to: deadline)
      guard left > .zero else { return nil }
      // At most an hour at a time, so that no far deadline overflows the sum.
      var until = timespec()
      clock_gettime(CLOCK_MONOTONIC, &until)
      let (seconds, attoseconds) = min(left, .seconds(3600)).components
      let nanoseconds = until.tv_nsec + Int(attoseconds / 1_000_000_000)
      until.tv_sec += Int(seconds) + nanoseconds / 1_000_000_000
      until.tv_nsec = nanoseconds % 1_000_000_000
      pthread_cond_timedwait(condition, mutex, &until)
    }
  }
}
