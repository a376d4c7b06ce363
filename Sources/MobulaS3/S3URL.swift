public import MobulaCore

/// `s3://bucket/key`; what follows the bucket may be a key, a prefix, or nothing.
public struct S3URL: Hashable, Sendable, CustomStringConvertible {
  public let bucket: String
  public let key: String

  public init(bucket: String, key: String) {
    self.bucket = bucket
    self.key = key
  }

  /// Takes the key as it is written: nothing is percent-decoded, and a `?` is a part of it. See `namedVersion`.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) when the scheme or the bucket is missing or impossible.
  public init(_ text: String) throws(MobulaError) {
    // Bytes, since a mark behind a slash makes it another character to Swift.
    let rest = text.utf8.dropFirst(5)
    let bucket = rest.prefix { $0 != UInt8(ascii: "/") }
    guard text.utf8.prefix(5).elementsEqual("s3://".utf8) || text.utf8.prefix(5).elementsEqual("S3://".utf8),
      let bucketName = String(bucket), S3URL.isBucketName(bucketName),
      let key = String(rest.dropFirst(bucket.count + 1))
    else {
      if rest.starts(with: "arn:".utf8) {
        throw MobulaError(
          .invalidArgument, "\"\(text.printable)\" has an access point's ARN, which can't be named: give its bucket.")
      }
      throw MobulaError(.invalidArgument, "\"\(text.printable)\" is no S3 address: give it as s3://BUCKET/KEY.")
    }
    self.init(bucket: bucketName, key: key)
  }

  /// Letters, digits, `.`, `-` and `_`, at most 63: AWS's rules and what other servers add to them.
  static func isBucketName(_ text: some StringProtocol) -> Bool {
    1...63 ~= text.utf8.count
      && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-._".contains($0)) }
  }

  /// What `s3://bucket/key?versionId=V` means where no key is called so: one version of `s3://bucket/key`. `nil` for a
  /// URL that does not end like that.
  public var namedVersion: (object: S3URL, versionID: String)? {
    let words = key.split(separator: "?versionId=", omittingEmptySubsequences: false)
    guard words.count > 1, let versionID = words.last, 1...1024 ~= versionID.utf8.count,
      versionID.utf8.allSatisfy({ 0x21...0x7E ~= $0 && !"?&#/%".utf8.contains($0) })
    else { return nil }
    let object = key.dropLast(versionID.count + "?versionId=".count)
    return object.isEmpty ? nil : (S3URL(bucket: bucket, key: String(object)), String(versionID))
  }

  /// The URL exactly: what it is called in the cluster.
  public var name: Name { Name("s3://\(bucket)/\(key)") }

  /// For people.
  public var description: String { "\(name)" }

  public static func == (a: Self, b: Self) -> Bool { a.name == b.name }

  public func hash(into hasher: inout Hasher) { name.hash(into: &hasher) }
}
