internal import CMobula
internal import Glibc

/// Runs `body` on a thread of its own, for calls that block: sockets, `waitpid`, big copies.
///
/// Swift's own executors have one thread a core; a blocking call there would
/// stop unrelated work. `name` (15 bytes are kept) shows in `top -H` and debuggers.
package func detachThread(named name: String, _ body: @escaping @Sendable () -> Void) {
  final class Box: Sendable {
    let name: String
    let body: @Sendable () -> Void
    init(_ name: String, _ body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
  var thread = pthread_t()
  let result = pthread_create(
    &thread, &attributes,
    { argument in
      let box = Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue()
      mobula_name_thread(String(decoding: box.name.utf8.prefix(15), as: UTF8.self))
      box.body()
      return nil
    }, Unmanaged.passRetained(Box(name, body)).toOpaque())
  pthread_attr_destroy(&attributes)
  precondition(result == 0, "a thread can't be started: \(errnoText(result))")
}

/// Runs blocking `body` on a thread of its own and suspends until it is done.
package func onThread<Value: Sendable>(
  named name: String, _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    detachThread(named: name) { continuation.resume(with: Result { try body() }) }
  }
}
