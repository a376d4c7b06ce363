import Glibc

/// The executable that this process runs.
public enum Executable {
  /// Its absolute path.
  ///
  /// - Throws: `MobulaError` (`inputOutput`) when `/proc` is not mounted.
  public static func path() throws(MobulaError) -> String {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = try systemCall("The path of this program can't be read (is /proc mounted?)") {
      buffer.withUnsafeMutableBytes { readlink("/proc/self/exe", $0.baseAddress!, $0.count) }
    }
    return String(decoding: buffer[..<count], as: UTF8.self)
  }
}
