import MobulaCore
import Testing

@testable import MobulaS3

/// A real OpenBao in its development mode that knows the service account of `TokenIssuer` and gives it identity
/// tokens.
enum OpenBao {
  static func start(trusting issuer: TokenIssuer) async throws -> TestServer {
    let server = try await TestServer.start("bao", ready: "/v1/sys/health") { port in
      ["server", "-dev", "-dev-root-token-id=root", "-dev-listen-address=127.0.0.1:\(port)", "-dev-no-store-token"]
    }
    func write(_ path: String, _ body: String) async throws {
      let request = PlainRequest(
        method: "POST", url: "\(server.url)/v1/\(path)",
        headers: [("x-vault-token", "root"), ("content-type", "application/json")], body: Array(body.utf8))
      let answer = try await PlainHTTPClient.shared.send(request, within: .seconds(10))
      guard 200...299 ~= answer.status else {
        throw MobulaError(.unavailable, "\(path): \(String(decoding: answer.body, as: UTF8.self))")
      }
    }
    do {
      let pem = issuer.pem.split(separator: "\n").joined(separator: "\\n")
      try await write("sys/auth/jwt", #"{"type":"jwt"}"#)
      try await write("auth/jwt/config", #"{"jwt_validation_pubkeys":["\#(pem)"],"bound_issuer":"\#(issuer.url)"}"#)
      try await write(
        "auth/jwt/role/mobula",
        """
        {"role_type":"jwt","user_claim":"sub","bound_audiences":["vault"],\
        "bound_subject":"system:serviceaccount:models:mobula","token_policies":["mobula"],"token_ttl":"10m"}
        """)
      try await write(
        "sys/policies/acl/mobula", #"{"policy":"path \"identity/oidc/token/s3\" { capabilities = [\"read\"] }"}"#)
      try await write("identity/oidc/config", #"{"issuer":"\#(server.url)"}"#)
      try await write("identity/oidc/key/s3", #"{"algorithm":"RS256","allowed_client_ids":["mobula"]}"#)
      try await write("identity/oidc/role/s3", #"{"key":"s3","client_id":"mobula","ttl":"10m"}"#)
    } catch {
      await server.stop()
      throw error
    }
    return server
  }
}
