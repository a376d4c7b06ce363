internal import Glibc
internal import MobulaCore

/// Finds the `weed` program, and other servers, in the project's Python environment.
enum SeaweedBinary {
  /// The program's path; see `find`.
  ///
  /// - Throws: `MobulaError` (`notFound`) that says how to install it.
  static func locate(pythonEnvironment: String?, _ environment: [String: String] = currentEnvironment())
    throws(MobulaError) -> String
  {
    if let path = find("weed", pythonEnvironment: pythonEnvironment, environment) { return path }
    let named = pythonEnvironment ?? environment["MOBULA_PYTHON_ENVIRONMENT"]
    throw MobulaError(
      .notFound,
      "SeaweedFS is not installed\(named.map { " in \($0)" } ?? ""): put `weed` on the PATH (in a clone `make environment` installs it), give --s3-endpoint, or run other --cases than those with S3."
    )
  }

  /// The path of a program, searched for in this order: the environment given, the one that
  /// `MOBULA_PYTHON_ENVIRONMENT` names, `.venv` here or in a folder above, up to the package's root, and `PATH`.
  static func find(
    _ program: String, pythonEnvironment: String? = nil, _ environment: [String: String] = currentEnvironment()
  ) -> String? {
    let named = pythonEnvironment ?? environment["MOBULA_PYTHON_ENVIRONMENT"]
    let folders = (named.map { [$0] } ?? defaultFolders()).map { "\($0)/bin" }
    let path = named == nil ? (environment["PATH"] ?? "").split(separator: ":").filter { $0.hasPrefix("/") } : []
    return (folders + path.map(String.init)).map { "\($0)/\(program)" }.first { access($0, X_OK) == 0 }
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
