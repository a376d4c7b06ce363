import ArgumentParser
import Glibc
import MobulaCore
import MobulaS3
import MobulaTerminal
import Synchronization

/// An object of S3 that a command writes, with the credentials of the tool's own environment.
struct S3Target {
  /// What a command says in its help.
  static let discussion = """
    To s3://BUCKET/KEY the tool itself uploads, with the credentials that `mobula credentials` shows. The object appears
    whole or not at all.

    """

  let url: S3URL
  let endpoint: String?

  /// `nil` for a text that is no S3 address, but, say, a file.
  ///
  /// - Parameter name: the key's last part, where `text` ends in `/` or names a bucket only.
  /// - Throws: `MobulaError` (`invalidArgument`) for an address that can't be.
  init?(_ text: String, name: String, endpoint: String?) throws {
    guard text.lowercased().hasPrefix("s3://") else { return nil }
    var url = try S3URL(text)
    if url.key.isEmpty || url.key.hasSuffix("/") { url = S3URL(bucket: url.bucket, key: url.key + name) }
    self.url = url
    self.endpoint = endpoint
  }

  private struct Uploaded: Encodable {
    var url: String
    var size: Int
    var etag: String?
  }

  /// Uploads `size` bytes, shows how far it is, and prints what came about.
  ///
  /// - Parameter producer: returns the bytes of a range; called from any thread, for several ranges at a time.
  func upload(
    _ size: Int, title: String, json: Bool, producer: @escaping @Sendable (Range<Int>) async throws -> [UInt8]
  ) async throws {
    let client = try await S3Client.fromEnvironment(endpoint: endpoint)
    let progress = Progress(title, total: size)
    defer { progress.finish(succeeded: false) }
    let sent = SentBytes()
    let etag: String?
    do {
      etag = try await S3Error.asMobulaError {
        try await client.put(bucket: url.bucket, key: url.key, size: size) { range in
          let bytes = try await producer(range)
          // What is sent again counts again.
          progress.update(min(size, sent.add(range.count)), of: size)
          return bytes
        }
      }
      await client.shutdown()
    } catch {
      await client.shutdown()
      throw error
    }
    progress.finish()
    if json { return try printJSON(Uploaded(url: url.name.text, size: size, etag: etag)) }
    print("\(ByteCount(size)) in \(url)")
  }

  /// Uploads a file, read as it is sent.
  func upload(file path: String, json: Bool) async throws {
    let file = SharedDescriptor(
      OwnedDescriptor(owning: try systemCall("\(path) can't be read") { open(path, O_RDONLY | O_CLOEXEC) }))
    var status = stat()
    try systemCall("\(path) can't be read") { fstat(file.rawValue, &status) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw MobulaError(.invalidArgument, "\(path) is not a file: give the path of one.")
    }
    try await upload(Int(status.st_size), title: path, json: json) { range in
      try [UInt8](unsafeUninitializedCapacity: range.count) { buffer, filled in
        while filled < range.count {
          let count = try systemCall("\(path) can't be read") {
            pread(file.rawValue, buffer.baseAddress! + filled, range.count - filled, range.lowerBound + filled)
          }
          guard count > 0 else {
            throw MobulaError(.inputOutput, "\(path) became shorter while it was read: put it again.")
          }
          filled += count
        }
      }
    }
  }
}

private final class SentBytes: Sendable {
  private let count = Mutex(0)

  func add(_ bytes: Int) -> Int {
    count.withLock { count in
      count += bytes
      return count
    }
  }
}
