public import MobulaCore

/// `s3://bucket/key`; what follows the bucket may be a key, a prefix, or nothing.
public struct S3URL: Hashable, Sendable, CustomStringConvertible {
  public let bucket: String
  public let key: String

  public init(bucket: String, key: String) {
    self.bucket = bucket
    self.key = key
  }

  /// Takes the key as it is written: nothing is percent-decoded.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) when the scheme or the bucket is missing or impossible.
  public init(_ text: String) throws(MobulaError) {
    let rest = text.dropFirst(5)
    let bucket = rest.prefix { $0 != "/" }
    guard text.lowercased().hasPrefix("s3://"), S3URL.isBucketName(bucket) else {
      throw MobulaError(.invalidArgument, "\"\(text)\" is no S3 address: give it as s3://BUCKET/KEY.")
    }
    self.init(bucket: String(bucket), key: String(rest.dropFirst(bucket.count + 1)))
  }

  /// Letters, digits, `.`, `-` and `_`, at most 63: AWS's rules and what other servers add to them.
  static func isBucketName(_ text: some StringProtocol) -> Bool {
    1...63 ~= text.utf8.count
      && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-._".contains($0)) }
  }

  public var description: String { "s3://\(bucket)/\(key)" }
}
