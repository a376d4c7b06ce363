internal import MobulaCore

/// AWS's two shared files together, and the profile chosen in them. Settings of `credentials` go before those of
/// `config`.
struct SharedConfig: Sendable, Equatable {
  private(set) var profiles: [String: SharedConfigFile.Section] = [:]
  private(set) var services: [String: SharedConfigFile.Section] = [:]
  /// `AWS_PROFILE`, or `default`.
  let profileName: String
  /// Whether `AWS_PROFILE` names it: then it must be there.
  let isNamed: Bool

  init(
    config: SharedConfigFile = .init(), credentials: SharedConfigFile = .init(), environment: [String: String] = [:]
  ) {
    profiles = config.profiles
    services = config.services
    for (name, section) in credentials.profiles { profiles[name, default: .init()].merge(section) }
    let name = environment["AWS_PROFILE"].flatMap { $0.isEmpty ? nil : $0 }
    profileName = name ?? "default"
    isNamed = name != nil
  }

  /// The paths of `config` and `credentials`: `AWS_CONFIG_FILE`, `AWS_SHARED_CREDENTIALS_FILE`, or in `~/.aws`.
  static func paths(_ environment: [String: String]) -> (config: String, credentials: String) {
    func path(_ variable: String, _ name: String) -> String {
      let home = environment["HOME"] ?? ""
      guard let given = environment[variable], !given.isEmpty else { return "\(home)/.aws/\(name)" }
      return given.hasPrefix("~/") ? home + given.dropFirst() : given
    }
    return (path("AWS_CONFIG_FILE", "config"), path("AWS_SHARED_CREDENTIALS_FILE", "credentials"))
  }

  /// The profile in use; `nil` where `default` is not there.
  ///
  /// - Throws: `MobulaError` (`notFound`) where `AWS_PROFILE` names one that is not there.
  func profile() throws(MobulaError) -> SharedConfigFile.Section? {
    if let profile = profiles[profileName] { return profile }
    guard isNamed else { return nil }
    throw MobulaError(
      .notFound, "There is no profile \(profileName) in AWS's config and credentials files: check AWS_PROFILE.")
  }

  /// The region of the profile in use.
  func region() throws(MobulaError) -> String? { try profile()?["region"] }

  /// The certificates to trust instead of the system's: `AWS_CA_BUNDLE`, or the profile's `ca_bundle`.
  func trustedRoots(_ environment: [String: String]) throws(MobulaError) -> String? {
    if let path = environment["AWS_CA_BUNDLE"], !path.isEmpty { return path }
    return try profile()?["ca_bundle"]
  }

  /// Where `service` (`s3`, `sts`) answers, by the profile in use: what its `services` section says of the service,
  /// else its `endpoint_url`; `nil` where it says nothing or is told to be ignored.
  ///
  /// - Throws: also `notFound` for a `services` section that is not there.
  func endpoint(of service: String, _ environment: [String: String]) throws(MobulaError) -> String? {
    guard let profile = try profile() else { return nil }
    let ignored = environment["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] ?? profile["ignore_configured_endpoint_urls"]
    if ignored?.lowercased() == "true" { return nil }
    if let name = profile["services"] {
      guard let section = services[name] else {
        throw MobulaError(
          .notFound,
          "Profile \(profileName) names the services section \(name), which AWS's config file does not have: add it.")
      }
      if let endpoint = section.nested[service]?["endpoint_url"], !endpoint.isEmpty { return endpoint }
    }
    if let endpoint = profile.nested[service]?["endpoint_url"], !endpoint.isEmpty { return endpoint }
    return profile["endpoint_url"]
  }
}
