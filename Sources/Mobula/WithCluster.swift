public import ServiceLifecycle

/// Connects as `Cluster.connect` does, and ends the job when `body` has ended, however it does.
///
/// ```swift
/// let sum = try await withCluster { cluster in try await cluster.run(Sum(numbers: [1, 2, 3])) }
/// ```
/// - Parameter options: which cluster, and how; the one of this machine's host unless told otherwise.
/// - Throws: as `Cluster.connect`; what `body` throws.
public func withCluster<Value>(
  _ options: ClusterOptions = ClusterOptions(), _ body: (Cluster) async throws -> Value
) async throws -> Value {
  let cluster = try await Cluster.connect(options)
  do {
    let value = try await body(cluster)
    await cluster.close()
    return value
  } catch {
    await cluster.close()
    throw error
  }
}

/// A cluster among the services of a server: its job ends when they are shut down, after those that stand behind it in
/// their group.
///
/// ```swift
/// let cluster = try await Cluster.connect()
/// try await ServiceGroup(services: [cluster, server], gracefulShutdownSignals: [.sigterm], logger: logger).run()
/// ```
/// A worker is this program, too: begin `main` with `if Worker.isRequested { await Worker.main() }`.
extension Cluster: Service {
  /// Waits for the shutdown, or to be cancelled; then the job has ended.
  public func run() async throws {
    try? await gracefulShutdown()
    await close()
  }
}
