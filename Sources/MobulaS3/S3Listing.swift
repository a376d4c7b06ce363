/// An object as a listing shows it.
public struct S3ListedObject: Hashable, Sendable {
  public let key: String
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

  /// `nil` when `bytes` is no such page.
  init?(_ bytes: [UInt8]) {
    guard let tree = XMLTree.parse(bytes), tree.name == "ListBucketResult" else { return nil }
    objects = []
    for entry in tree.children where entry.name == "Contents" {
      guard let key = entry["Key"], let text = entry["Size"] else { return nil }
      guard let size = S3Size.parse(text) else {
        impossible = impossible ?? (key, text)
        continue
      }
      objects.append(S3ListedObject(key: key, size: size, etag: entry["ETag"] ?? ""))
    }
    guard tree["IsTruncated"] == "true" else { return }
    guard let next = tree["NextContinuationToken"], !next.isEmpty else { return nil }
    continuation = next
  }
}
