/// Reads SeaweedFS's Prometheus page.
enum SeaweedMetrics {
  /// The payload that the S3 service has sent for `bucket`; 0 as long as it counts none.
  static func bytesSent(bucket: String, in text: String) -> Int {
    let name = "SeaweedFS_s3_bucket_traffic_sent_bytes_total{"
    let label = "bucket=\"\(bucket)\""
    return text.split(separator: "\n")
      .filter { $0.hasPrefix(name) && $0.contains(label) }
      .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
      .reduce(0) { $0 + Int($1) }
  }
}
