public import MobulaCore

/// An object as a listing shows it.
public struct S3ListedObject: Hashable, Sendable {
  public let key: Name
  /// Bytes.
  public let size: Int
  /// With its quotes, as `If-Match` takes it.
  public let etag: String
}

/// One page of ListObjectsV2.
struct S3ListingPage: Sendable {
  var objects: [S3ListedObject]
  /// Where the next page begins; `nil` on the last.
  var continuation: String?
  /// An object whose size is none.
  var impossible: (key: String, size: String)?

  /// Whether a key may be another than the one that is there: XML has no way to write some characters.
  var isDoubtful: Bool { objects.contains { $0.key.text.unicodeScalars.contains("\u{FFFD}") } }

  /// `nil` when `bytes` is no such page.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) when a key is no UTF-8.
  init?(_ bytes: [UInt8]) throws(MobulaError) {
    guard let tree = XMLTree.parse(bytes), tree.name == "ListBucketResult" else { return nil }
    objects = []
    let isEncoded = tree["EncodingType"] == "url"
    for entry in tree.children where entry.name == "Contents" {
      guard let key = entry["Key"], let text = entry["Size"] else { return nil }
      guard let size = S3Size.parse(text) else {
        impossible = impossible ?? (key, text)
        continue
      }
      let name = isEncoded ? try Name(percentDecoded(key)) : Name(key)
      objects.append(S3ListedObject(key: name, size: size, etag: entry["ETag"] ?? ""))
    }
    guard tree["IsTruncated"] == "true" else { return }
    guard let next = tree["NextContinuationToken"], !next.isEmpty else { return nil }
    continuation = next
  }
}
