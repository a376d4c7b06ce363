internal import MobulaCore

/// The endpoint where a container gets credentials: ECS, or EKS Pod Identity.
///
/// Source: "Container credential provider", AWS SDKs and Tools Reference Guide.
struct ContainerEndpoint: Sendable, Equatable, CustomStringConvertible {
  let url: String
  /// Sent as `Authorization`; a file is read again for every request, as EKS renews it.
  let authorization: Authorization

  enum Authorization: Sendable, Equatable {
    case none
    case token(String)
    case file(String)
  }

  /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` at ECS's address, or `AWS_CONTAINER_CREDENTIALS_FULL_URI`, with
  /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` or `AWS_CONTAINER_AUTHORIZATION_TOKEN`; `nil` where neither URI is set.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) for a URI that credentials must not be asked of: HTTP is allowed to
  ///   this host, ECS (169.254.170.2) and EKS (169.254.170.23, fd00:ec2::23) only.
  init?(_ variables: EnvironmentVariables) throws(MobulaError) {
    if let path = variables["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] {
      guard path.hasPrefix("/"), Self.isPath(path[...]) else {
        throw MobulaError(.invalidArgument, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is no path: it begins with /.")
      }
      url = "http://169.254.170.2\(path)"
    } else if let full = variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
      try Self.check(full)
      url = full
    } else {
      return nil
    }
    if let file = variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] {
      authorization = .file(file)
    } else {
      authorization = variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"].map { .token($0) } ?? .none
    }
  }

  private static func check(_ url: String) throws(MobulaError) {
    let name = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    let parts = url.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2 else {
      throw MobulaError(.invalidArgument, "\(name) is no URL: give it as http://HOST/PATH.")
    }
    let authority = parts[1].prefix { $0 != "/" && $0 != "?" }
    let endpoint: S3Endpoint
    do { endpoint = try S3Endpoint("\(parts[0])://\(authority)") } catch {
      throw MobulaError(.invalidArgument, "\(name) is no URL: give it as http://HOST/PATH.")
    }
    guard isPath(parts[1].dropFirst(authority.count)) else {
      throw MobulaError(.invalidArgument, "\(name) has characters that no URL has: encode them.")
    }
    guard endpoint.scheme == .https || isAllowed(endpoint.host) else {
      throw MobulaError(
        .invalidArgument,
        "\(name) sends credentials unencrypted to \(endpoint.host), which is neither this host nor ECS or EKS: take https."
      )
    }
  }

  private static func isPath(_ text: Substring) -> Bool {
    text.utf8.allSatisfy { 0x21...0x7E ~= $0 }
  }

  /// Whether plain HTTP to this host stays within the machine.
  static func isAllowed(_ host: String) -> Bool {
    if ["localhost", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"].contains(host.lowercased()) {
      return true
    }
    let parts = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
    return parts.count == 4 && parts.first == 127 && parts.allSatisfy { $0 != nil }
  }

  /// Without a query, which may hold a secret.
  var description: String { String(url.prefix { $0 != "?" }) }

  /// Asks for credentials: 3 attempts of 2 s.
  func load(_ surroundings: CredentialsSurroundings) async throws -> S3Credentials {
    var headers = [("accept", "application/json")]
    switch authorization {
    case .none: break
    case .token(let token): headers.append(("authorization", token))
    case .file(let file):
      headers.append(("authorization", try await surroundings.token(in: file)))
    }
    guard headers.allSatisfy({ $0.1.utf8.allSatisfy { 0x20...0x7E ~= $0 } }) else {
      throw MobulaError(
        .invalidArgument,
        "The container's authorization token has line ends or other bytes that no header takes: correct it.")
    }
    let giver = "The container's credentials endpoint \(self)"
    let answer = try await surroundings.send(
      PlainRequest(url: url, headers: headers), attempts: 3, within: .seconds(2), giver: giver)
    guard answer.status == 200 else {
      throw MobulaError(
        answer.status == 401 || answer.status == 403 ? .denied : .unavailable,
        "\(giver) answers with status \(answer.status): check the role that the task or pod has.")
    }
    return try CredentialsDocument.credentials(answer.body, from: giver)
  }
}
