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

  /// `nil` when `bytes` is no such page.
  init?(_ bytes: [UInt8]) {
    guard let tree = XMLTree.parse(bytes), tree.name == "ListBucketResult" else { return nil }
    objects = []
    for entry in tree.children where entry.name == "Contents" {
      guard let key = entry["Key"], let size = entry["Size"].flatMap(Int.init), size >= 0 else { return nil }
      objects.append(S3ListedObject(key: Name(key), size: size, etag: entry["ETag"] ?? ""))
    }
    guard tree["IsTruncated"] == "true" else { return }
    guard let next = tree["NextContinuationToken"], !next.isEmpty else { return nil }
    continuation = next
  }
}
