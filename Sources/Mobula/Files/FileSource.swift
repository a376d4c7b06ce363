import Glibc
package import MobulaCore
import Synchronization

/// The bytes of what a path names, all there to be read, in any order and more than once.
///
/// A file of known size is read where it is. What has no size that can be believed (FIFOs, pipes, most files of /proc
/// and /sys) is read to its end first: into memory, or a file without a name in the folder for temporary files.
package struct FileSource: Sendable {
  private enum Content: Sendable {
    case file(SharedDescriptor)
    case memory([UInt8])
  }

  /// What messages call it.
  package let title: String
  package let size: Int
  private let content: Content

  /// What `-` is called.
  package static let standardInput = "Standard input"
  /// Files up to this size are read whole at once: what /sys says of its files is a page, and no more than a guess.
  private static let small = 1 << 20
  /// More of a stream than this goes to a file.
  private static let memoryLimit = 32 << 20
  /// Bigger than any object can be.
  private static let absurd = 1 << 47

  /// - Parameters:
  ///   - path: a file, a FIFO, or `-` for standard input. A FIFO that nobody writes to yet is waited for.
  ///   - limit: the most bytes that a stream may have; it is given up when there are more.
  ///   - progress: how many bytes of a stream have come.
  /// - Throws: `MobulaError`: `invalidArgument` for devices, sockets and folders, `full` beyond the limit, `inputOutput`.
  ///   `CancellationError`.
  package static func open(_ path: String, limit: ByteCount? = nil, progress: (@Sendable (Int) -> Void)? = nil)
    async throws -> FileSource
  {
    let flag = CancellationFlag()
    return try await withTaskCancellationHandler {
      try await onThread(named: "read") {
        try read(path, limit: limit?.bytes ?? absurd, flag: flag, progress: progress)
      }
    } onCancel: {
      flag.set()
    }
  }

  /// Whether `open` has to read to an end to know the size.
  package static func isStream(_ path: String) -> Bool {
    var status = stat()
    return path == "-" || stat(path, &status) == 0 && (status.st_mode & S_IFMT != S_IFREG || status.st_size == 0)
  }

  private static func read(_ path: String, limit: Int, flag: CancellationFlag, progress: (@Sendable (Int) -> Void)?)
    throws -> FileSource
  {
    let title = path == "-" ? standardInput : path
    let file: SharedDescriptor
    var status = stat()
    if path == "-" {
      // A copy: standard input itself stays open.
      let copy = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
      guard copy >= 0 else { throw MobulaError(.inputOutput, "Standard input is closed: there is nothing to read.") }
      file = SharedDescriptor(OwnedDescriptor(owning: copy))
    } else {
      guard !path.isEmpty else { throw MobulaError(.invalidArgument, "A file's path can't be empty: give one.") }
      // Looked at before it is opened: opening a device may do something.
      try systemCall("\(path) can't be read") { stat(path, &status) }
      try check(status, path)
      // Without waiting for who writes to a FIFO.
      file = SharedDescriptor(
        OwnedDescriptor(
          owning: try systemCall("\(path) can't be read") {
            Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
          }))
    }
    try systemCall("\(title) can't be read") { fstat(file.rawValue, &status) }
    if path != "-" { try check(status, path) }
    let isRegular = status.st_mode & S_IFMT == S_IFREG
    guard isRegular, path != "-", status.st_size > Self.small else {
      // A regular file ends at what was its size when it was opened, though it grows; one without a size at its end.
      let end = isRegular && path != "-" && status.st_size > 0 ? Int(status.st_size) : nil
      return try Stream(title: title, file: file, isRegular: isRegular, end: end, limit: limit).read(
        flag: flag, progress: progress)
    }
    guard status.st_size < absurd else {
      throw MobulaError(.invalidArgument, "\(title) says that it has \(status.st_size) bytes: no object can be so big.")
    }
    return FileSource(title: title, size: Int(status.st_size), content: .file(file))
  }

  private static func check(_ status: stat, _ path: String) throws(MobulaError) {
    switch status.st_mode & S_IFMT {
    case S_IFREG, S_IFIFO: return
    case S_IFDIR: throw MobulaError(.invalidArgument, "\(path) is a folder, not a file: give the files in it.")
    case S_IFCHR, S_IFBLK:
      throw MobulaError(
        .invalidArgument, "\(path) is a device, not a file: read it with another program into `mobula put -`.")
    case S_IFSOCK: throw MobulaError(.invalidArgument, "\(path) is a socket, not a file: give the path of a file.")
    default: throw MobulaError(.invalidArgument, "\(path) is no file: give the path of one.")
    }
  }

  /// Fills `target` with the bytes from `offset`.
  ///
  /// - Throws: `MobulaError` (`inputOutput`) when the file can't be read, or has become shorter.
  package func read(into target: UnsafeMutableRawBufferPointer, at offset: Int) throws(MobulaError) {
    switch content {
    case .memory(let bytes):
      bytes.withUnsafeBytes {
        target.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[offset..<offset + target.count]))
      }
    case .file(let file):
      var filled = 0
      while filled < target.count {
        let count = try systemCall("\(title) can't be read") {
          pread(file.rawValue, target.baseAddress! + filled, target.count - filled, offset + filled)
        }
        guard count > 0 else {
          throw MobulaError(
            .inputOutput,
            "\(title) became shorter while it was read (\(offset + filled) bytes instead of \(size)): nothing was put.")
        }
        filled += count
      }
    }
  }

  /// Of the object that a put of these bytes makes, without making it: same content, same digest.
  package func digest() async throws -> ObjectDigest {
    try await onThread(named: "digest") {
      let (layout, prefix) = ValueLayout.blob(size: size)
      let geometry = try ChunkGeometry(objectSize: layout.size)
      var checksums = [UInt32](repeating: 0, count: geometry.count)
      var done = 0
      func add(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty {
          let chunk = done / geometry.chunkSize
          let piece = min(rest.count, geometry.range(of: chunk).upperBound - done)
          checksums[chunk] = crc32c(UnsafeRawBufferPointer(rebasing: rest[..<piece]), continuing: checksums[chunk])
          rest = UnsafeRawBufferPointer(rebasing: rest[piece...])
          done += piece
        }
      }
      prefix.withUnsafeBytes(add)
      var buffer = [UInt8](repeating: 0, count: min(1 << 20, max(1, size)))
      var offset = 0
      while offset < size {
        let piece = min(buffer.count, size - offset)
        try buffer.withUnsafeMutableBytes { memory in
          let part = UnsafeMutableRawBufferPointer(rebasing: memory[..<piece])
          try read(into: part, at: offset)
          add(UnsafeRawBufferPointer(part))
        }
        offset += piece
      }
      return ObjectDigest(geometry: geometry, checksums: checksums)
    }
  }

  /// What is read until its end.
  private struct Stream {
    let title: String
    let file: SharedDescriptor
    let isRegular: Bool
    /// Where to stop though there is more.
    let end: Int?
    let limit: Int

    func read(flag: CancellationFlag, progress: (@Sendable (Int) -> Void)?) throws -> FileSource {
      var memory: [UInt8] = []
      memory.reserveCapacity(end ?? 65_536)
      var spool: SharedDescriptor?
      var size = 0
      var buffer = [UInt8](repeating: 0, count: 1 << 18)
      while true {
        let most = min(buffer.count, (end ?? .max) - size)
        guard most > 0, let count = try next(&buffer, most, flag) else { break }
        size += count
        guard size <= limit else {
          throw MobulaError(
            .full,
            "\(title) has more than \(ByteCount(limit)), which no object of this store can have: start the host with a larger --capacity."
          )
        }
        if spool == nil, size > FileSource.memoryLimit {
          spool = try Self.temporaryFile(title)
          try memory.withUnsafeBytes { try append($0, to: spool!) }
          memory = []
        }
        if let spool {
          try buffer.withUnsafeBytes { try append(UnsafeRawBufferPointer(rebasing: $0[..<count]), to: spool) }
        } else {
          memory += buffer[..<count]
        }
        progress?(size)
      }
      return FileSource(title: title, size: size, content: spool.map { .file($0) } ?? .memory(memory))
    }

    /// How many bytes came, at most `most`; `nil` at the end.
    private func next(_ buffer: inout [UInt8], _ most: Int, _ flag: CancellationFlag) throws -> Int? {
      while true {
        if !isRegular {
          // FIFOs are open without blocking; this is also what waits for the first who writes.
          var poll = pollfd(fd: file.rawValue, events: Int16(POLLIN), revents: 0)
          let ready = Glibc.poll(&poll, 1, 200)
          if flag.isSet { throw CancellationError() }
          if ready <= 0 { continue }
        } else if flag.isSet {
          throw CancellationError()
        }
        let count = Glibc.read(file.rawValue, &buffer, most)
        if count > 0 { return count }
        if count == 0 { return nil }
        switch currentErrno() {
        case EINTR: continue
        case EAGAIN where !isRegular: continue
        case EAGAIN:
          throw MobulaError(
            .invalidArgument, "\(title) has no end: it gives bytes as they come. Read it with another program.")
        default: throw MobulaError.system("\(title) can't be read")
        }
      }
    }

    private func append(_ bytes: UnsafeRawBufferPointer, to spool: SharedDescriptor) throws(MobulaError) {
      try writeAll(bytes, to: spool.rawValue, "\(title) can't be kept in \(Self.folder) until its end")
    }

    /// Not memory, as /tmp may be.
    private static var folder: String {
      currentEnvironment()["TMPDIR"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? "/var/tmp"
    }

    private static func temporaryFile(_ title: String) throws(MobulaError) -> SharedDescriptor {
      SharedDescriptor(try unnamedFile(in: folder, mode: 0o600, "\(title) can't be kept in \(folder) until its end"))
    }
  }
}

/// Set once, by whoever cancels.
private final class CancellationFlag: Sendable {
  private let value = Atomic(false)
  var isSet: Bool { value.load(ordering: .relaxed) }
  func set() { value.store(true, ordering: .relaxed) }
}

/// A new file that has no name, and so goes with its last descriptor; where the file system has no such
/// thing, one that loses its name at once.
private func unnamedFile(in folder: String, mode: mode_t, _ what: String) throws(MobulaError) -> OwnedDescriptor {
  let raw = open(folder, O_RDWR | O_CLOEXEC | temporaryFlag, mode)
  if raw >= 0 { return OwnedDescriptor(owning: raw) }
  var template = Array("\(folder)/.mobula-XXXXXX".utf8CString)
  let named = try systemCall(what) { mkstemp(&template) }
  _ = fcntl(named, F_SETFD, FD_CLOEXEC)
  unlink(template)
  return OwnedDescriptor(owning: named)
}

/// Linux's O_TMPFILE, which the importer does not show.
let temporaryFlag = 0o20_000_000 | O_DIRECTORY

/// Writes all the bytes, waiting where the descriptor does not block.
func writeAll(
  _ bytes: UnsafeRawBufferPointer, to descriptor: CInt, _ what: @autoclosure () -> String,
  progress: (Int) -> Void = { _ in }
) throws(MobulaError) {
  var done = 0
  while done < bytes.count {
    let count = write(descriptor, bytes.baseAddress! + done, min(8 << 20, bytes.count - done))
    if count >= 0 {
      done += count
      progress(done)
      continue
    }
    switch currentErrno() {
    case EINTR: continue
    case EAGAIN:
      var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      _ = poll(&ready, 1, 1000)
    case EPIPE: throw MobulaError(.connectionClosed, "\(what()): nobody reads it any more.")
    default: throw MobulaError.system(what())
    }
  }
}
