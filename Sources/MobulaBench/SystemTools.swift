internal import Glibc
import MobulaCore

/// The system's own programs that the emulation runs, found also where an
/// ordinary user's `PATH` doesn't look.
enum SystemTool: String, CaseIterable {
  case ip, tc, unshare, nsenter, setpriv, mount, sh

  /// The Debian package that has it.
  var package: String {
    switch self {
    case .ip, .tc: "iproute2"
    case .unshare, .nsenter, .setpriv: "util-linux"
    case .mount: "mount"
    case .sh: "dash"
    }
  }

  /// `PATH`, and behind it the directories where these programs are kept from ordinary users.
  static func searchPath(_ environment: [String: String] = currentEnvironment()) -> String {
    let own = (environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":").map(String.init)
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].filter { !own.contains($0) }
    return (own + system).joined(separator: ":")
  }

  /// The absolute path of the program.
  ///
  /// - Throws: `MobulaError` (`unavailable`) that names the package to install.
  func path(in searchPath: String = Self.searchPath()) throws(MobulaError) -> String {
    guard let path = find(in: searchPath) else { throw MobulaError(.unavailable, Self.missing([self])!) }
    return path
  }

  private func find(in searchPath: String) -> String? { Self.find(rawValue, in: searchPath) }

  /// The absolute path of any program, which may be missing.
  static func find(_ name: String, in searchPath: String = Self.searchPath()) -> String? {
    searchPath.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
  }

  /// A sentence on the tools that aren't there; `nil` when all are.
  static func missing(in searchPath: String = Self.searchPath()) -> String? {
    missing(allCases.filter { $0.find(in: searchPath) == nil })
  }

  private static func missing(_ tools: [SystemTool]) -> String? {
    guard !tools.isEmpty else { return nil }
    let names = tools.map { "`\($0.rawValue)`" }
    let packages = Set(tools.map(\.package)).sorted().joined(separator: " ")
    return names.count == 1
      ? "\(names[0]) is missing: install \(packages)."
      : "\(names.dropLast().joined(separator: ", ")) and \(names.last!) are missing: install \(packages)."
  }
}
