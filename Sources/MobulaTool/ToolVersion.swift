import MobulaWire

/// Which build of the tool this is.
enum ToolVersion {
  static let number = "0.2.0"

  /// The version, the commit where the build was one of a checkout, and what it speaks with others.
  static var text: String {
    "mobula \(number)\(builtCommit.isEmpty ? "" : " (\(builtCommit))"), wire \(Hello.currentWireVersion)"
  }
}
