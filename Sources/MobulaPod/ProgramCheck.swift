import MobulaCore
import MobulaWire
import Synchronization

/// Makes sure that a lease's executable is here and is the driver's build.
final class ProgramCheck: Sendable {
  private let known = Mutex<[Name: (stamp: FileStamp, build: String)]>([:])

  /// - Throws: `MobulaError`: `notFound` when the file is not here, `mismatch` when it is another build.
  func check(_ program: WorkerProgram) async throws {
    let stamp = try FileStamp(of: program.executable)
    let build: String
    let path = Name(program.executable)
    if let entry = known.withLock({ $0[path] }), entry.stamp == stamp {
      build = entry.build
    } else {
      build = try await onThread(named: "build id") { try BuildID.compute(program.executable) }
      known.withLock { $0[path] = (stamp, build) }
    }
    guard build == program.build else {
      throw MobulaError(
        .mismatch,
        "\(path) is build \(build.prefix(12)) here and \(program.build.prefix(12)) at the driver: install the same build on every host."
      )
    }
  }
}
