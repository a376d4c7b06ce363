/// Runs `body` to its end even when the calling task is cancelled: for giving back what was taken.
///
/// `body` needs a deadline of its own, as every call of this project's has.
package func cleanUp(_ body: @escaping @Sendable () async -> Void) async {
  await Task { await body() }.value
}
