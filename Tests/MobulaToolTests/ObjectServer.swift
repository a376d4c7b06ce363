import MobulaCore
import MobulaTestKit
import Synchronization

/// An HTTP server that stands in for S3 where no real one would do what a test needs: it says of its objects what the
/// test tells it, also what is wrong. It believes every signature.
final class ObjectServer: Sendable {
  struct Version: Sendable {
    /// Of a bucket that keeps versions.
    var id: String?
    var bytes: [UInt8]
    var etag: String
    /// What it says besides: `x-amz-checksum-crc32c`.
    var headers: [String: String] = [:]
    /// Bytes of the parts of its upload.
    var parts: [Int] = []
  }

  struct Request: Sendable {
    var method: String
    /// Bucket and key, decoded.
    var path: String
    var query: [String: String]
    var range: Range<Int>?
  }

  private struct State {
    /// By `/bucket/key`; the last is the current one.
    var objects: [Name: [Version]] = [:]
    var requests: [Request] = []
    var deniesVersions = false
  }

  private let silent: SilentPort
  var port: Int { silent.port }
  private let state = Mutex(State())

  var environment: [String: String] {
    [
      "AWS_ENDPOINT_URL": "http://127.0.0.1:\(port)", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a",
      "AWS_SECRET_ACCESS_KEY": "s",
    ]
  }
  var requests: [Request] { state.withLock { $0.requests } }

  /// Whoever names a version is refused.
  func denyVersions() { state.withLock { $0.deniesVersions = true } }

  /// Replaces what there is of the key, or becomes its current version.
  func put(_ path: String, _ version: Version) {
    let path = Name(path)
    state.withLock { state in
      if version.id == nil { state.objects[path] = [] }
      state.objects[path, default: []].append(version)
    }
  }

  init() throws {
    silent = try SilentPort()
    try silent.listen("object server") { [self] in serve($0) }
  }

  func stop() { silent.stop() }

  private func serve(_ connection: SilentConnection) {
    guard let head = connection.head() else { return }
    connection.answer(answer(Self.parse(head)))
  }

  private static func parse(_ head: String) -> Request {
    let lines = head.split(separator: "\r\n")
    let words = lines[0].split(separator: " ")
    let target = words[1].split(separator: "?", maxSplits: 1)
    var query: [String: String] = [:]
    for pair in target.count == 2 ? target[1].split(separator: "&") : [] {
      let halves = pair.split(separator: "=", maxSplits: 1).map { decoded($0) }
      query[halves[0]] = halves.count == 2 ? halves[1] : ""
    }
    var range: Range<Int>?
    if let line = lines.first(where: { $0.lowercased().hasPrefix("range: bytes=") }) {
      let ends = line.split(separator: "=")[1].split(separator: "-").map { Int($0)! }
      range = ends[0]..<ends[1] + 1
    }
    return Request(method: String(words[0]), path: decoded(target[0]), query: query, range: range)
  }

  private static func decoded(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      bytes.append(UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)!)
      rest = rest.dropFirst(2)
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private func answer(_ request: Request) -> [UInt8] {
    state.withLock { state in
      state.requests.append(request)
      if let prefix = request.query["prefix"] { return Self.listing(state.objects, request, prefix) }
      if request.query["versionId"] != nil, state.deniesVersions { return Self.message("403 Forbidden", [:]) }
      let version = state.objects[Name(request.path)]?.last {
        request.query["versionId"] == nil || request.query["versionId"] == $0.id
      }
      guard let version else { return Self.message("404 Not Found", [:]) }
      var headers = version.headers
      headers["ETag"] = version.etag
      headers["x-amz-version-id"] = version.id
      if request.method == "HEAD" {
        var size = version.bytes.count
        if let part = request.query["partNumber"].flatMap({ Int($0) }) {
          guard 1...max(1, version.parts.count) ~= part, !version.parts.isEmpty else {
            return Self.message("400 Bad Request", [:])
          }
          size = version.parts[part - 1]
          headers["x-amz-mp-parts-count"] = "\(version.parts.count)"
        }
        return Self.message("200 OK", headers, size: size)
      }
      guard let range = request.range else {
        return Self.message("200 OK", headers, size: version.bytes.count) + version.bytes
      }
      headers["Content-Range"] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(version.bytes.count)"
      // Those of all bytes are no header of a range.
      headers = headers.filter { !$0.key.hasPrefix("x-amz-checksum") }
      return Self.message("206 Partial Content", headers, size: range.count) + version.bytes[range]
    }
  }

  /// A page of two objects, continued behind a key.
  private static func listing(_ objects: [Name: [Version]], _ request: Request, _ prefix: String) -> [UInt8] {
    let bucket = request.path
    let isEncoded = request.query["encoding-type"] == "url"
    func shown(_ key: Substring.UTF8View) -> String {
      if isEncoded { return key.map { "%\($0 < 16 ? "0" : "")\(String($0, radix: 16))" }.joined() }
      return Substring(key).unicodeScalars.map { "&#\($0.value);" }.joined()
    }
    let behind = request.query["continuation-token"].flatMap { Int($0) } ?? 0
    let found = objects.filter { $0.key.hasPrefix("\(bucket)/\(prefix)") }.sorted { $0.key < $1.key }
    let page = found.dropFirst(behind).prefix(2)
    let contents = page.map { path, versions in
      "<Contents><Key>\(shown(path.utf8.dropFirst(bucket.utf8.count + 1)))</Key>"
        + "<Size>\(versions.last!.bytes.count)</Size></Contents>"
    }
    let isLast = behind + page.count == found.count
    let more = isLast ? "" : "<NextContinuationToken>\(behind + page.count)</NextContinuationToken>"
    let kind = isEncoded ? "<EncodingType>url</EncodingType>" : ""
    let body =
      "<ListBucketResult>\(kind)<IsTruncated>\(!isLast)</IsTruncated>\(more)\(contents.joined())</ListBucketResult>"
    return message("200 OK", [:], size: body.utf8.count) + Array(body.utf8)
  }

  private static func message(_ status: String, _ headers: [String: String], size: Int = 0) -> [UInt8] {
    var head = "HTTP/1.1 \(status)\r\nConnection: close\r\nContent-Length: \(size)\r\n"
    for (name, value) in headers { head += "\(name): \(value)\r\n" }
    return Array("\(head)\r\n".utf8)
  }
}
