/// Names that the system gives, which no user gives or takes.
package enum ReservedNames {
  /// Of what was fetched from S3: `s3://BUCKET/KEY`.
  package static let url = "s3://"
  /// Of one version of it, which no URL of S3 can be: `s3-version:URL#ETAG@ENDPOINT`.
  package static let version = "s3-version:"
  /// Of what a user holds without another name: `held/OBJECT`.
  package static let held = "held/"

  /// Why a user can't give this name; `nil` for one that he can.
  package static func objection(to name: String) -> String? {
    for (beginning, owner) in [(url, "what was fetched from there"), (version, "its versions"), (held, "holds")]
    where name.lowercased().utf8.starts(with: beginning.utf8) {
      return "names that begin with \(beginning) are those of \(owner), and given by Mobula itself"
    }
    return nil
  }
}
