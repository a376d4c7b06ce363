internal import Glibc
internal import MobulaCore

/// Finds the `weed` program in the project's Python environment.
enum SeaweedBinary {
  /// The program's path, searched for in this order: the environment given, the one that
  /// `MOBULA_PYTHON_ENVIRONMENT` names, `.venv` here or in a folder above, up to the package's root.
  ///
  /// - Throws: `MobulaError` (`notFound`) that says how to install it.
  static func locate(
    pythonEnvironment: String?, _ environment: [String: String] = currentEnvironment()
  ) throws(MobulaError) -> String {
    let named = pythonEnvironment ?? environment["MOBULA_PYTHON_ENVIRONMENT"]
    for folder in named.map({ [$0] }) ?? defaultFolders() {
      let path = "\(folder)/bin/weed"
      if access(path, X_OK) == 0 { return path }
    }
    throw MobulaError(
      .notFound, "SeaweedFS is not installed\(named.map { " in \($0)" } ?? ""): run `make environment`.")
  }

  private static func defaultFolders() -> [String] {
    guard let working = getcwd(nil, 0) else { return [] }
    defer { free(working) }
    var folder = String(cString: working)
    var result: [String] = []
    while true {
      result.append("\(folder)/.venv")
      if access("\(folder)/Package.swift", F_OK) == 0 || folder.isEmpty || folder == "/" { return result }
      folder = String(folder[..<(folder.lastIndex(of: "/") ?? folder.startIndex)])
    }
  }
}
