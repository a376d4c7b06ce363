import Crypto
import FoundationEssentials
import MobulaCore

/// A stand-in for an issuer of web identity tokens, such as a Kubernetes cluster: it signs with a key of its own
/// (ES256, RFC 7518) and serves the public one as a JWKS (RFC 7517).
final class TokenIssuer: Sendable {
  private let key = P256.Signing.PrivateKey()
  private let server: StandInServer

  init() throws {
    let point = key.publicKey.rawRepresentation
    let keys = """
      {"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"k1",\
      "x":"\(Self.base64URL(point.prefix(32)))","y":"\(Self.base64URL(point.suffix(32)))"}]}
      """
    server = try StandInServer { request in
      request.path == "/keys"
        ? answer("200 OK", ["Content-Type": "application/json"], keys.utf8) : answer("404 Not Found")
    }
  }

  var url: String { server.url }
  var keysURL: String { "\(url)/keys" }
  /// The public key as SubjectPublicKeyInfo.
  var pem: String { key.publicKey.pemRepresentation }

  func stop() { server.stop() }

  /// - Parameter life: seconds from now to its end.
  func token(
    subject: String = "system:serviceaccount:models:mobula", audience: String = "mobula", life: Double = 600,
    key other: P256.Signing.PrivateKey? = nil
  ) throws -> String {
    let now = Int(Date().timeIntervalSince1970)
    let header = #"{"alg":"ES256","kid":"k1","typ":"JWT"}"#
    let claims = """
      {"iss":"\(url)","sub":"\(subject)","aud":["\(audience)"],"iat":\(now - 1),"nbf":\(now - 1),"exp":\(now + Int(life))}
      """
    let signed = "\(Self.base64URL(Array(header.utf8))).\(Self.base64URL(Array(claims.utf8)))"
    let signature = try (other ?? key).signature(for: Array(signed.utf8))
    return "\(signed).\(Self.base64URL(signature.rawRepresentation))"
  }

  static func base64URL(_ bytes: some Sequence<UInt8>) -> String {
    Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
  }
}
