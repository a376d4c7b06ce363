import ArgumentParser
import Dispatch
import Glibc
import Mobula
import MobulaCore
import MobulaS3
import MobulaSupervisor
import MobulaTerminal
import Synchronization

/// An object of S3 that a command writes, with the credentials of the tool's own environment.
struct S3Target {
  /// What a command says in its help.
  static let discussion = """
    To s3://BUCKET/KEY the tool itself uploads, with the credentials that `mobula credentials` shows. The object appears \
    whole or not at all.
    """

  let url: S3URL
  let access: S3Access

  /// `nil` for a text that is no S3 address, but, say, a file.
  ///
  /// - Parameter name: the key's last part, where `text` ends in `/` or names a bucket only.
  /// - Throws: `MobulaError` (`invalidArgument`) for an address that can't be.
  init?(_ text: String, name: String, _ access: S3Access) throws {
    guard Self.isS3(text) else { return nil }
    var url = try S3URL(text)
    if url.key.isEmpty || url.key.hasSuffix("/") { url = S3URL(bucket: url.bucket, key: url.key + name) }
    self.url = url
    self.access = access
  }

  /// - Throws: `ValidationError` for what begins as an address in S3 and can be none.
  static func check(_ text: String) throws {
    if isS3(text) {
      _ = try asUsage { try S3URL(text) }
    } else if text.lowercased().hasPrefix("s3:/") {
      throw ValidationError("\"\(text.printable)\" is no address in S3: write it as s3://BUCKET/KEY.")
    }
  }

  static func isS3(_ text: String) -> Bool { text.lowercased().hasPrefix("s3://") }

  struct Uploaded: Encodable {
    var url: String
    var size: Int
    var etag: String?
  }

  /// Uploads `size` bytes, shows how far it is, and says what came about.
  ///
  /// - Parameters:
  ///   - printsNothing: on standard output.
  ///   - producer: returns the bytes of a range; called from any thread, for several ranges at a time.
  func upload(
    _ size: Int, title: String, printsNothing: Bool, showsProgress: Bool,
    producer: @escaping @Sendable (Range<Int>) async throws -> [UInt8]
  ) async throws -> Uploaded {
    let client = try await S3Client.fromEnvironment(access)
    let progress = showsProgress ? Progress(title, total: size) : nil
    defer { progress?.finish(succeeded: false) }
    let sent = SentBytes()
    let notes = Notes { progress?.note($0) }
    let upload = Task { [url] in
      try await S3Error.asMobulaError {
        try await client.put(
          bucket: url.bucket, key: url.key, size: size,
          progress: { progress?.update(min(size, sent.add($0)), of: size) },
          waiting: { notes.say($0.mobulaError.message) }, producer: producer)
      }
    }
    // Parts that nobody ends are stored, and paid for, for good. What goes at once has none.
    let hasParts = size >= client.configuration.multipartThreshold.bytes
    let over = DispatchSemaphore(value: 0)
    let pending = Interruption.whenEnding { [url] in
      upload.cancel()
      guard hasParts else { return }
      // Of one that S3 has not said that it has begun, nobody knows by which name it would be ended.
      if over.wait(timeout: .now() + 3) == .timedOut || !client.hasAnswered {
        Log.write(
          STDERR_FILENO, "S3 does not answer: parts of \(url) may be left there, as an upload that was begun.\n")
      }
    }
    defer { pending.isOver() }
    let result = await upload.result
    over.signal()
    // The signal ends this process.
    while upload.isCancelled { try await Task.sleep(for: .seconds(60)) }
    await client.shutdown()
    let etag = try result.get()
    progress?.update(size, of: size)
    progress?.finish()
    if !printsNothing { print("\(ByteCount(size)) in \(url)") }
    return Uploaded(url: url.name.text, size: size, etag: etag)
  }

  /// Uploads a file, read as it is sent; what has no size first is read to its end.
  func upload(file path: String, printsNothing: Bool, showsProgress: Bool) async throws -> Uploaded {
    // S3 takes no more.
    let source = try await FileSource.open(path, limit: ByteCount(5 << 40))
    return try await upload(
      source.size, title: source.title, printsNothing: printsNothing, showsProgress: showsProgress
    ) { range in
      try [UInt8](unsafeUninitializedCapacity: range.count) { buffer, filled in
        try source.read(into: UnsafeMutableRawBufferPointer(buffer), at: range.lowerBound)
        filled = range.count
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
