internal import CMobula
internal import Glibc

/// The calling thread's `errno`; read it straight after the call that failed.
package func currentErrno() -> CInt { errno }

/// The system's words for an errno value, such as "No such file or directory".
package func errnoText(_ number: CInt) -> String {
  // XSI's variant: 0, and the text in the buffer.
  var buffer = [CChar](repeating: 0, count: 256)
  guard strerror_r(number, &buffer, buffer.count) == 0 else { return "error \(number)" }
  return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Calls `body` again as long as a signal interrupted it.
///
/// - Throws: `MobulaError` (`inputOutput`) that begins with `what` and gives the system's reason.
@discardableResult
package func systemCall<Result: FixedWidthInteger>(
  _ what: @autoclosure () -> String, file: String = #fileID, line: Int = #line, _ body: () -> Result
) throws(MobulaError) -> Result {
  while true {
    let result = body()
    if result != -1 { return result }
    let number = errno
    if number != EINTR { throw MobulaError.system(what(), number: number, file: file, line: line) }
  }
}

/// CRC32C (Castagnoli, RFC 3720 appendix B.4) of `bytes`, continuing from `crc`.
@inline(__always)
package func crc32c(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt32 = 0) -> UInt32 {
  guard let base = bytes.baseAddress else { return crc }
  return mobula_crc32c(crc, base, bytes.count)
}

/// The system's page, in bytes.
package let pageSize = Int(sysconf(CInt(_SC_PAGESIZE)))
