internal import MobulaCore

/// All of an object, which came by one GET.
package struct S3SmallObject: Sendable {
  package let bytes: [UInt8]
  /// Where the bucket keeps versions, which no listing tells.
  package let versionID: String?
  /// S3's checksum, which the bytes have; `nil` where it keeps none of the whole object.
  package let checksum: S3Checksum?
}

extension S3Client {
  /// One version of a small object, of which a listing has told all that is needed, by one attempt.
  ///
  /// - Parameters:
  ///   - info: its size and ETag.
  ///   - pace: waits until so many more bytes may be received.
  /// - Throws: as `get`: `S3Error` with status 412 when the object is another by now, `wrongChecksum`; `malformed` for an
  ///   answer of another length.
  package func small(bucket: String, key: String, info: S3ObjectInfo, pace: S3Pace? = nil) async throws -> S3SmallObject
  {
    let answer = try await transport.send(.get(bucket: bucket, key: key, range: nil, ifMatch: info.etag))
    guard answer.etag == nil || answer.etag == info.etag else {
      throw S3Error(
        code: "PreconditionFailed", httpStatus: 412, endpoint: configuration.baseEndpoint, bucket: bucket, key: key)
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(info.size)
    try await answer.readPieces(pace: pace) { piece in
      guard piece.count <= info.size - bytes.count else {
        throw malformed("more bytes came than its listing has", bucket: bucket, key: key)
      }
      bytes.append(contentsOf: piece)
    }
    guard bytes.count == info.size else {
      throw S3Error(
        code: S3Error.interrupted, message: "\(info.size - bytes.count) of \(info.size) bytes did not come",
        endpoint: configuration.baseEndpoint, bucket: bucket, key: key)
    }
    return S3SmallObject(
      bytes: bytes, versionID: S3ObjectInfo.versionID(in: answer), checksum: answer.checksum)
  }
}
