import Glibc
package import MobulaCore

extension HostPaths {
  /// How processes of this host talk to others: with TLS where the host was started with it.
  ///
  /// - Throws: `MobulaError` when the certificates can't be read or have expired.
  package static func tls(in directory: String) throws(MobulaError) -> ClusterTLS? {
    let folder = CertificateFolder(certificates(in: directory))
    return access(folder.path, F_OK) == 0 ? try ClusterTLS(folder) : nil
  }
}
