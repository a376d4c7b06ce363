internal import CMobula
internal import Glibc

/// All of a small file that a person named: a token, a certificate.
///
/// Nothing in its place keeps anybody waiting: a FIFO is read to its end if somebody writes it within two seconds, and
/// what a shell makes of `<(…)` within thirty.
///
/// - Parameters:
///   - path: the file's.
///   - what: the beginning of a message, as in `The cluster token can't be read from FILE`.
///   - limit: the most bytes that it may have.
/// - Throws: `MobulaError`: `inputOutput` with the system's reason, `invalidArgument` for more than `limit` bytes,
///   `deadlineExceeded` for what nobody writes.
package func readSmallFile(_ path: String, _ what: @autoclosure () -> String, limit: Int) throws(MobulaError) -> [UInt8]
{
  // Not blocking: an open for reading waits for who writes a FIFO.
  let descriptor = OwnedDescriptor(
    owning: try systemCall(what()) { open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) })
  let raw = descriptor.rawValue
  // Of a pipe that this process was given somebody has the other end.
  let isGiven = ["/dev/fd/", "/proc/self/fd/", "/dev/stdin"].contains { path.hasPrefix($0) }
  let deadline = ContinuousClock.now + .seconds(isGiven ? 30 : 2)
  var bytes: [UInt8] = []
  var piece = [UInt8](repeating: 0, count: min(limit, 65_535) + 1)
  while true {
    // Before the first read, too: one of a FIFO that nobody has opened yet reads its end.
    var ready = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    let left = ContinuousClock.now.duration(to: deadline) / .milliseconds(1)
    guard try systemCall(what(), { poll(&ready, 1, CInt(max(0, left))) }) > 0 else {
      throw MobulaError(.deadlineExceeded, "\(what()): nobody writes it; give a file.")
    }
    let count = read(raw, &piece, piece.count)
    if count == 0 { return bytes }
    if count < 0 {
      if [EINTR, EAGAIN].contains(errno) { continue }
      throw MobulaError.system(what())
    }
    bytes += piece[..<count]
    guard bytes.count <= limit else {
      throw MobulaError(.invalidArgument, "\(what()): it has more than \(limit) bytes; give the right file.")
    }
  }
}

/// The end of a log, that many bytes of it at most; empty when it can't be read.
package func endOfFile(_ path: String, bytes most: Int) -> String {
  var status = stat()
  guard stat(path, &status) == 0 else { return "" }
  let size = Int(status.st_size)
  return String(decoding: readFile(path, from: max(0, size - most), most: min(most, size)), as: UTF8.self)
}

/// What a file has from an offset on, so many bytes at most; empty when it can't be read.
package func readFile(_ path: String, from offset: Int, most: Int) -> [UInt8] {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
  guard descriptor >= 0 else { return [] }
  defer { close(descriptor) }
  var bytes = [UInt8](repeating: 0, count: max(0, most))
  let count = pread(descriptor, &bytes, bytes.count, off_t(offset))
  return Array(bytes.prefix(max(count, 0)))
}

/// The names of what is in a folder, in no order; empty when it can't be read.
package func names(inFolder path: String) -> [String] {
  guard let entries = opendir(path) else { return [] }
  defer { closedir(entries) }
  return names(in: entries)
}

/// The names of what is in a folder that was opened, in no order.
package func names(in entries: OpaquePointer) -> [String] {
  var names: [String] = []
  while let entry = readdir(entries) {
    names.append(
      withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: $0.pointee)) { String(cString: $0) }
      })
  }
  return names
}
