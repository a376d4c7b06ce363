internal import Glibc
internal import MobulaCore
internal import NIOSSL

/// Files of certificates to trust instead of the system's.
enum TrustedRoots {
  /// - Parameter path: the file that they are from, for the error.
  /// - Throws: `MobulaError` (`invalidArgument`) when there are none.
  static func certificates(_ pem: [UInt8], of path: String) throws(MobulaError) -> [NIOSSLCertificate] {
    guard let certificates = try? NIOSSLCertificate.fromPEMBytes(pem), !certificates.isEmpty else {
      throw MobulaError(.invalidArgument, "\(path) has no certificates that can be read: name a PEM file of them.")
    }
    return certificates
  }

  /// Finds out before the first request what would fail with it.
  ///
  /// - Parameter name: what names the file, for the error.
  static func check(_ path: String, namedBy name: String) throws(MobulaError) {
    // Not blocking, so that a pipe in the file's place is no trap.
    let raw = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard raw >= 0 else {
      throw MobulaError(
        .invalidArgument,
        "\(name) names \(path.printable), which can't be read (\(errnoText(errno))): name a PEM file of certificates.")
    }
    defer { close(raw) }
    var status = stat()
    guard fstat(raw, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
      let certificates = try? NIOSSLCertificate.fromPEMFile(path), !certificates.isEmpty
    else {
      throw MobulaError(
        .invalidArgument,
        "\(name) names \(path.printable), which has no certificates that can be read: name a PEM file of them.")
    }
  }
}
