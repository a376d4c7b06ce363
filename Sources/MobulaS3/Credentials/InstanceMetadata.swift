internal import MobulaCore

/// The metadata service of an EC2 instance, version 2. Version 1, which any proxy on the host can be made to ask, is
/// never spoken.
///
/// Source: "Use the Instance Metadata Service to access instance metadata", Amazon EC2 User Guide, and "IMDS
/// credential provider", AWS SDKs and Tools Reference Guide.
struct InstanceMetadata: Sendable, Equatable {
  let endpoint: S3Endpoint
  /// Of one attempt: `AWS_METADATA_SERVICE_TIMEOUT`, 1 s by default.
  let timeout: Duration
  /// `AWS_METADATA_SERVICE_NUM_ATTEMPTS`, 2 by default.
  let attempts: Int

  /// `nil` where `AWS_EC2_METADATA_DISABLED` is `true`.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) for an endpoint that is none.
  init?(_ variables: EnvironmentVariables, profile: SharedConfigFile.Section?) throws(MobulaError) {
    if variables["AWS_EC2_METADATA_DISABLED"]?.lowercased() == "true" { return nil }
    let mode =
      variables["AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"] ?? profile?["ec2_metadata_service_endpoint_mode"] ?? "IPv4"
    if let text = variables["AWS_EC2_METADATA_SERVICE_ENDPOINT"] ?? profile?["ec2_metadata_service_endpoint"] {
      endpoint = try S3Endpoint(text)
    } else {
      endpoint = S3Endpoint(host: mode.lowercased() == "ipv6" ? "fd00:ec2::254" : "169.254.169.254")
    }
    let seconds = variables["AWS_METADATA_SERVICE_TIMEOUT"].flatMap(Int.init) ?? 1
    timeout = .seconds(min(60, max(1, seconds)))
    attempts = min(10, max(1, variables["AWS_METADATA_SERVICE_NUM_ATTEMPTS"].flatMap(Int.init) ?? 2))
  }

  private static let path = "/latest/meta-data/iam/security-credentials/"

  /// The instance's role and its credentials.
  ///
  /// - Throws: `MobulaError`: `unauthenticated` where nothing answers, as on any host that is no instance, or where
  ///   the instance has no role.
  func load(_ surroundings: CredentialsSurroundings) async throws -> (S3Credentials, role: String) {
    let token: String
    do {
      let answer = try await send(
        "PUT", "/latest/api/token", ("x-aws-ec2-metadata-token-ttl-seconds", "21600"), surroundings)
      guard answer.status == 200, let text = Self.word(answer.body) else {
        throw MobulaError(
          .unavailable,
          "The instance metadata service at \(endpoint) gives no token (status \(answer.status)): check the instance's metadata options."
        )
      }
      token = text
    } catch let error as MobulaError where error.code == .deadlineExceeded || error.code == .unavailable {
      throw MobulaError(
        .unauthenticated,
        "There are no credentials for S3: none in the environment, in AWS's files or of a container, and this host is no EC2 instance with a metadata service (\(error.message.hasSuffix(".") ? String(error.message.dropLast()) : error.message)). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
      )
    }
    let list = try await send("GET", Self.path, ("x-aws-ec2-metadata-token", token), surroundings)
    guard list.status == 200, let role = Self.word(list.body) else {
      throw MobulaError(
        list.status == 404 || list.status == 200 ? .unauthenticated : .unavailable,
        "This EC2 instance has no role for S3 (status \(list.status)): attach an instance profile.")
    }
    let answer = try await send(
      "GET", Self.path + percentEncoded(role), ("x-aws-ec2-metadata-token", token), surroundings)
    let giver = "The instance metadata service at \(endpoint)"
    guard answer.status == 200 else {
      throw MobulaError(
        .unavailable, "\(giver) has no credentials of \(role) (status \(answer.status)): check the instance profile.")
    }
    return (try CredentialsDocument.credentials(answer.body, from: giver), role)
  }

  private func send(
    _ method: String, _ path: String, _ header: (String, String), _ surroundings: CredentialsSurroundings
  ) async throws -> PlainAnswer {
    try await surroundings.send(
      PlainRequest(method: method, url: "\(endpoint)\(path)", headers: [header]), attempts: attempts, within: timeout,
      giver: "The instance metadata service at \(endpoint)")
  }

  /// The first line, where it is one that fits a header or a path.
  private static func word(_ bytes: [UInt8]) -> String? {
    let line = bytes.prefix { $0 != 10 && $0 != 13 }
    guard 1...4096 ~= line.count, line.allSatisfy({ 0x21...0x7E ~= $0 }) else { return nil }
    return String(decoding: line, as: UTF8.self)
  }
}
