internal import FoundationEssentials
internal import MobulaCore

/// The roles that a SeaweedFS's STS gives out, and whom they trust.
public struct SeaweedIAM: Sendable {
  /// An issuer of web identity tokens.
  public struct Provider: Sendable {
    public var name: String
    public var issuer: String
    /// The audience that tokens have to name.
    public var clientID: String
    /// Where its public keys are.
    public var keysURL: String

    public init(name: String, issuer: String, clientID: String, keysURL: String) {
      self.name = name
      self.issuer = issuer
      self.clientID = clientID
      self.keysURL = keysURL
    }
  }

  /// A role that all identities of the server and the provider's tokens may take on.
  public struct Role: Sendable {
    public var name: String
    /// As in `s3:GetObject`.
    public var actions: [String]
    /// As in `arn:aws:s3:::models/*`.
    public var resources: [String]
    /// The name of the `Provider` that it trusts too.
    public var provider: String?

    public init(name: String, actions: [String], resources: [String], provider: String? = nil) {
      self.name = name
      self.actions = actions
      self.resources = resources
      self.provider = provider
    }

    public var arn: String { "arn:aws:iam::role/\(name)" }
  }

  public var providers: [Provider]
  public var roles: [Role]
  /// How long credentials are valid where their request does not say; 1 h by default.
  public var tokenDuration: Duration

  public init(providers: [Provider] = [], roles: [Role], tokenDuration: Duration = .seconds(3600)) {
    self.providers = providers
    self.roles = roles
    self.tokenDuration = tokenDuration
  }

  /// The server's configuration, with a signing key made for it.
  func json() throws(MobulaError) -> String {
    var generator = SystemRandomNumberGenerator()
    let key = Data((0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) })
    let document = Document(
      sts: .init(
        tokenDuration: "\(tokenDuration.components.seconds)s", signingKey: key.base64EncodedString(),
        providers: providers.map {
          .init(name: $0.name, config: .init(issuer: $0.issuer, clientId: $0.clientID, jwksUri: $0.keysURL))
        }),
      roles: roles.map(Document.Role.init), policies: roles.map(Document.Policy.init))
    do {
      return String(decoding: try JSONEncoder().encode(document), as: UTF8.self)
    } catch {
      throw MobulaError(.invalidArgument, "The roles can't be written as JSON: give them other names.")
    }
  }
}

/// The file as SeaweedFS reads it.
private struct Document: Encodable {
  struct STS: Encodable {
    struct Provider: Encodable {
      struct Config: Encodable {
        var issuer: String
        var clientId: String
        var jwksUri: String
      }
      var name: String
      var type = "oidc"
      var enabled = true
      var config: Config
    }
    var tokenDuration: String
    var maxSessionLength = "12h"
    var issuer = "seaweedfs-sts"
    var signingKey: String
    var providers: [Provider]
  }

  struct Defaults: Encodable {
    var defaultEffect = "Deny"
    var storeType = "memory"
  }

  struct Statement: Encodable {
    // Written as they are: these are IAM's own names.
    enum CodingKeys: String, CodingKey {
      case effect = "Effect"
      case principal = "Principal"
      case action = "Action"
      case resource = "Resource"
    }
    var effect = "Allow"
    var principal: [String: String]?
    var action: [String]
    var resource: [String]?
  }

  struct PolicyDocument: Encodable {
    enum CodingKeys: String, CodingKey {
      case version = "Version"
      case statement = "Statement"
    }
    var version = "2012-10-17"
    var statement: [Statement]
  }

  struct Role: Encodable {
    var roleName: String
    var roleArn: String
    var trustPolicy: PolicyDocument
    var attachedPolicies: [String]

    init(_ role: SeaweedIAM.Role) {
      roleName = role.name
      roleArn = role.arn
      var trusted = [Statement(principal: ["AWS": "*"], action: ["sts:AssumeRole"])]
      if let provider = role.provider {
        trusted.append(Statement(principal: ["Federated": provider], action: ["sts:AssumeRoleWithWebIdentity"]))
      }
      trustPolicy = PolicyDocument(statement: trusted)
      attachedPolicies = [role.name]
    }
  }

  struct Policy: Encodable {
    var name: String
    var document: PolicyDocument

    init(_ role: SeaweedIAM.Role) {
      name = role.name
      document = PolicyDocument(statement: [Statement(action: role.actions, resource: role.resources)])
    }
  }

  var sts: STS
  var policy = Defaults()
  var roles: [Role]
  var policies: [Policy]
}
