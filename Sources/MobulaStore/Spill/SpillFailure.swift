internal import Glibc
internal import MobulaCore

/// Why an object could not be written into one spill folder.
struct SpillFailure: Error, Hashable {
  let folder: String
  /// An errno value.
  let number: CInt

  var isOutOfSpace: Bool { number == ENOSPC || number == EDQUOT }

  /// The folder is not there any more.
  var isRemoved: Bool { number == ENOENT || number == ESTALE }

  /// What a caller is told when every folder failed.
  ///
  /// - Parameter asked: bytes of the file that was to be written.
  /// - Returns: `full` when all of them are out of space, else `inputOutput`.
  static func error(of failures: [SpillFailure], asked: Int) -> MobulaError {
    if failures.allSatisfy(\.isOutOfSpace) {
      let folders = failures.map(\.folder).joined(separator: ", ")
      return MobulaError(
        .full,
        "No spill folder has room for \(ByteCount(asked)) more (\(folders)): free some space there, or give the host another folder."
      )
    }
    let reasons = failures.map { "\($0.folder): \(errnoText($0.number))" }.joined(separator: "; ")
    return MobulaError(
      .inputOutput,
      "An object of \(ByteCount(asked)) can't be spilled (\(reasons)): repair these folders, or give the host others.")
  }
}
