internal import FoundationEssentials
internal import MobulaCore

/// What Vault answers, as far as credentials need it.
///
/// Source: Vault HTTP API: "AWS secrets engine", "Identity tokens", "JWT/OIDC auth method", `/sys/leases`.
struct VaultDocument: Decodable, Sendable {
  struct Login: Decodable, Sendable {
    var clientToken: String
    /// Seconds; 0 for a token that never ends.
    var leaseDuration: Int?

    enum CodingKeys: String, CodingKey {
      case clientToken = "client_token"
      case leaseDuration = "lease_duration"
    }
  }

  struct Data: Decodable, Sendable {
    var accessKey: String?
    var secretKey: String?
    /// Its name since the engine began, and the one that newer versions add.
    var securityToken: String?
    var sessionToken: String?
    /// An identity token.
    var token: String?

    enum CodingKeys: String, CodingKey {
      case accessKey = "access_key"
      case secretKey = "secret_key"
      case securityToken = "security_token"
      case sessionToken = "session_token"
      case token
    }
  }

  enum CodingKeys: String, CodingKey {
    case leaseID = "lease_id"
    case leaseDuration = "lease_duration"
    case renewable, auth, data, errors
  }

  var leaseID: String?
  /// Seconds.
  var leaseDuration: Int?
  var renewable: Bool?
  var auth: Login?
  var data: Data?
  var errors: [String]?

  init?(_ bytes: [UInt8]) {
    guard let document = try? JSONDecoder().decode(VaultDocument.self, from: FoundationEssentials.Data(bytes)) else {
      return nil
    }
    self = document
  }
}

/// The right to credentials for a while.
struct VaultLease: Sendable, Equatable {
  var id: String
  var isRenewable: Bool
  /// Seconds, as it was given out first.
  var duration: Int

  /// Whether a renewal for `granted` seconds is worth it: near its longest life a lease is renewed for less and less.
  func isWorthRenewing(granted: Int) -> Bool { granted >= max(1, duration / 2) }
}
