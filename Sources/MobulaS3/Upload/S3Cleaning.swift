internal import MobulaCore

/// A multipart upload that was begun, and neither completed nor given up.
public struct S3UnfinishedUpload: Hashable, Sendable {
  public let key: String
  public let uploadID: String
}

extension S3Client {
  /// Deletes objects by one request for each thousand of them; those that are not there are no error.
  ///
  /// - Throws: also an `S3Error` for the first object that S3 did not delete; others may be gone then.
  public func delete(bucket: String, keys: [String]) async throws {
    for start in stride(from: 0, to: keys.count, by: 1000) {
      let batch = keys[start..<min(keys.count, start + 1000)]
      let bytes = Array(
        ("<Delete><Quiet>true</Quiet>"
          + batch.map { "<Object><Key>\(xmlEscaped($0))</Key></Object>" }.joined() + "</Delete>").utf8)
      let request = S3Request(
        method: .post, bucket: bucket, query: [("delete", "")],
        // S3 wants a checksum with this request, whatever the configuration says.
        headers: [("x-amz-checksum-crc32c", base64(bytes.withUnsafeBytes { crc32c($0) }))], payload: .bytes(bytes))
      let answer = try await document(request, named: "DeleteResult")
      if let failed = answer.children.first(where: { $0.name == "Error" }) {
        throw S3Error(
          code: failed["Code"] ?? "InternalError", message: failed["Message"] ?? "", httpStatus: 200,
          endpoint: configuration.baseEndpoint, bucket: bucket, key: failed["Key"])
      }
    }
  }

  /// The multipart uploads under way, or left, to keys that begin with `prefix`.
  public func unfinishedUploads(bucket: String, prefix: String) async throws -> [S3UnfinishedUpload] {
    var result: [S3UnfinishedUpload] = []
    var marker: (key: String, upload: String)?
    while true {
      var query = [("max-uploads", "1000"), ("prefix", prefix), ("uploads", "")]
      if let marker { query += [("key-marker", marker.key), ("upload-id-marker", marker.upload)] }
      let page = try await document(
        S3Request(method: .get, bucket: bucket, query: query), named: "ListMultipartUploadsResult")
      for upload in page.children where upload.name == "Upload" {
        guard let key = upload["Key"], let id = upload["UploadId"] else { continue }
        // Some services answer for all keys of the bucket.
        if Name(key).hasPrefix(prefix) { result.append(S3UnfinishedUpload(key: key, uploadID: id)) }
      }
      guard page["IsTruncated"] == "true", let key = page["NextKeyMarker"] else { return result }
      let next = (key, page["NextUploadIdMarker"] ?? "")
      guard marker == nil || marker! != next else {
        throw malformed("its listing of uploads does not end", bucket: bucket, key: nil)
      }
      marker = next
    }
  }

  /// Gives an upload up: its parts are no longer stored. One that is over is no error.
  public func abort(_ upload: S3UnfinishedUpload, bucket: String) async throws {
    do {
      try await done(
        S3Request(method: .delete, bucket: bucket, key: upload.key, query: [("uploadId", upload.uploadID)]))
    } catch let error as S3Error where error.code == "NoSuchUpload" {}
  }
}
