import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaS3
import Testing

/// `mobula credentials`, as its users meet it.
@Suite struct CredentialsTests {
  /// Nothing of the machine's own.
  func environment(_ folder: TemporaryFolder, _ more: [String: String]) -> [String: String] {
    var environment = [
      "HOME": folder.path, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "\(folder.path)/config",
      "AWS_SHARED_CREDENTIALS_FILE": "\(folder.path)/credentials",
    ]
    for name in currentEnvironment().keys where name.hasPrefix("AWS_") || name.contains("VAULT") {
      environment[name] = environment[name] ?? ""
    }
    return environment.merging(more) { $1 }
  }

  @Test func anSTSThatCannotBeAskedIsNoFailure() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    try Data(
      "[dev]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = hush-hush\naws_session_token = whisper\n".utf8
    )
    .write(to: URL(filePath: "\(folder.path)/credentials"))
    let shown = try await run(
      Products.mobula, ["credentials", "--endpoint", "http://127.0.0.1:1"],
      environment: environment(folder, ["AWS_PROFILE": "dev"]))
    #expect(shown.status.isSuccess, "\(shown)")
    #expect(shown.output.contains("source      profile dev\n"), "\(shown)")
    #expect(shown.output.contains("access key  AKIAEXAMPLE\n"), "\(shown)")
    #expect(shown.output.contains("at a time they don't name"), "\(shown)")
    #expect(
      shown.output.contains("Whose they are is not known: STS at http://127.0.0.1:1 can't be reached"), "\(shown)")
    for secret in ["hush-hush", "whisper"] { #expect(!"\(shown)".contains(secret)) }
  }

  @Test func withoutCredentials() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let none = try await run(Products.mobula, ["credentials"], environment: environment(folder, [:]))
    #expect(none.status == .status(1))
    #expect(none.errors.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"), "\(none)")
  }

  @Test(.enabled(if: SeaweedServer.isInstalled(), "skipped: SeaweedFS is not installed (make environment)"))
  func theIdentityBySeaweedFS() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let role = SeaweedIAM.Role(name: "Reader", actions: ["s3:GetObject"], resources: ["arn:aws:s3:::m/*"])
    let server = try await SeaweedServer.start(iam: SeaweedIAM(roles: [role]))
    let keys = server.credentials.environment
    let config = """
      [profile reader]
      role_arn = \(role.arn)
      source_profile = base
      [profile base]
      aws_access_key_id = \(keys["AWS_ACCESS_KEY_ID"] ?? "")
      aws_secret_access_key = \(keys["AWS_SECRET_ACCESS_KEY"] ?? "")
      """
    do {
      try Data(config.utf8).write(to: URL(filePath: "\(folder.path)/config"))
      let shown = try await run(
        Products.mobula, ["credentials", "--json", "--endpoint", "\(server.endpoint)"],
        environment: environment(folder, ["AWS_PROFILE": "reader"]))
      #expect(shown.status.isSuccess, "\(shown)")
      let fields = try JSONDecoder().decode(Fields.self, from: Data(shown.output.utf8))
      #expect(fields.source == "profile reader, role \(role.arn) assumed from profile base")
      #expect(fields.temporary)
      #expect(fields.arn?.contains("Reader") == true, "\(shown)")
      #expect(fields.expiration?.hasSuffix("Z") == true)
      #expect(fields.identityUnknown == nil)
      #expect(!"\(shown)".contains(keys["AWS_SECRET_ACCESS_KEY"] ?? "?"))
    } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  /// A host takes on a role for its downloads, and again when that is over.
  @Test(.enabled(if: SeaweedServer.isInstalled(), "skipped: SeaweedFS is not installed (make environment)"))
  func aHostRenewsItsRole() async throws {
    let life = 5
    let role = SeaweedIAM.Role(
      name: "Reader", actions: ["s3:GetObject", "s3:ListBucket"],
      resources: ["arn:aws:s3:::models", "arn:aws:s3:::models/*"])
    let server = try await SeaweedServer.start(iam: SeaweedIAM(roles: [role], tokenDuration: .seconds(life)))
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    do {
      let keys = server.credentials.environment
      let config = """
        [profile reader]
        role_arn = \(role.arn)
        source_profile = base
        endpoint_url = \(server.endpoint)
        [profile base]
        aws_access_key_id = \(keys["AWS_ACCESS_KEY_ID"] ?? "")
        aws_secret_access_key = \(keys["AWS_SECRET_ACCESS_KEY"] ?? "")
        """
      try Data(config.utf8).write(to: URL(filePath: "\(folder.path)/config"))
      let client = server.client()
      try await client.createBucket("models")
      for key in ["a", "b"] { try await client.put(bucket: "models", key: key, bytes: Array(key.utf8)) }
      await client.shutdown()
      var variables = environment(folder, ["AWS_PROFILE": "reader"])
      variables["HOME"] = nil
      try await withCluster(environment: variables) { cluster in
        let first = try await cluster.mobula("fetch", "s3://models/a")
        #expect(first.status.isSuccess, "\(first)")
        try await Task.sleep(for: .seconds(life + 1))
        let second = try await cluster.mobula("fetch", "s3://models/b")
        #expect(second.status.isSuccess, "\(second)")
      }
    } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  private struct Fields: Decodable {
    var source: String
    var temporary: Bool
    var arn: String?
    var expiration: String?
    var identityUnknown: String?
  }
}
