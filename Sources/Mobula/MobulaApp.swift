import Glibc
import MobulaCore

/// A program whose one executable is the driver and all its workers.
///
/// ```swift
/// @main struct App: MobulaApp {
///   func run(on cluster: Cluster) async throws { … }
/// }
/// ```
public protocol MobulaApp {
  /// Made once in the driver.
  init()
  /// What the driver does; the job ends when it returns.
  func run(on cluster: Cluster) async throws
}

extension MobulaApp {
  /// Runs as a worker when a pod started this process, else as the driver.
  @concurrent
  public static func main() async {
    if Worker.isRequested { await Worker.main() }
    do {
      let cluster = try await Cluster.connect()
      do {
        try await Self().run(on: cluster)
      } catch {
        await cluster.close()
        throw error
      }
      await cluster.close()
    } catch {
      FileHandleOutput.write("\(error)\n")
      exit(1)
    }
  }
}
