import ArgumentParser
import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import MobulaSupervisor
import MobulaWire

struct CertificatesCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "certificates",
    abstract: "Make and show the certificates of a cluster that uses TLS.",
    discussion: """
      Examples:
        mobula certificates create --directory tls --cluster lab
        mobula start --head --tls tls
        mobula certificates create --directory tls --cluster lab \\
          --host 10.0.0.1 --host 10.0.0.2
        mobula start --head --listen 10.0.0.1 --tls tls/10.0.0.1
        mobula certificates add --directory tls --host 10.0.0.3
        mobula certificates show --directory tls
        # On a host that runs, in the place of what it has.
        mobula certificates install new-tls

      Hosts need ca.pem, cert.pem and key.pem. Keep ca.key to yourself: who has it can make certificates.
      """,
    subcommands: [CreateCommand.self, AddCommand.self, ShowCommand.self, InstallCommand.self])
}

/// What the subcommands share.
private enum CertificateOptions {
  /// Clocks that are a little behind must not find a fresh certificate to be one of the future.
  static let tolerance = 3600
  static let day = 86_400

  static func check(days: Int) throws {
    if !(1...36_500 ~= days) { throw ValidationError("--days takes 1 to 36500.") }
  }

  static func check(hosts: [String]) throws {
    for host in hosts {
      let isName = host.utf8.allSatisfy { byte in
        switch UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte | 0x20 || 0x30...0x39 ~= byte {
        case true: true
        case false: ".-_:".utf8.contains(byte)
        }
      }
      guard isName, 1...253 ~= host.utf8.count, host.first != "." else {
        throw ValidationError("\"\(host)\" is no host for --host: give a DNS name or an address.")
      }
    }
    if Set(hosts).count < hosts.count { throw ValidationError("A --host is given twice.") }
  }

  static func validity(days: Int) -> Range<Int> {
    let now = Int(Date.now.timeIntervalSince1970)
    return now - tolerance..<now + days * day
  }
}

struct CreateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create",
    abstract: "Make a cluster's CA and a certificate for all hosts, or one for each --host.")

  @Option(help: "The folder to write to; with --host, each host's files go into a folder of its own in it.")
  var directory: String
  @Option(help: "The cluster's name, which the certificates bear.") var cluster: String
  @Option(help: "How long the certificates are valid; the CA is for at least ten years.") var days = 365
  @Option(help: "A host's name or address; may be repeated. Default: one certificate for every host.")
  var host: [String] = []

  func validate() throws {
    try CertificateOptions.check(days: days)
    try CertificateOptions.check(hosts: host)
    guard 1...48 ~= cluster.utf8.count, !cluster.contains(where: \.isNewline) else {
      throw ValidationError("--cluster takes a name of at most 48 bytes.")
    }
  }

  func run() async throws {
    let folder = CertificateFolder(directory)
    // All before anything is written.
    for file in folder.hostFiles where access(file, F_OK) == 0 {
      throw MobulaError(
        .alreadyExists,
        "\(file) is there already and is not replaced: choose another --directory, or `mobula certificates add` a host."
      )
    }
    let authority = try folder.createAuthority(
      cluster: cluster, validity: CertificateOptions.validity(days: max(days, 3650)))
    let validity = CertificateOptions.validity(days: days)
    if host.isEmpty {
      try folder.createCertificate(of: authority, name: "Mobula host of \(cluster)", hosts: [], validity: validity)
      print("Made a CA and a certificate for every host of cluster \(cluster) in \(directory).")
      print("Copy ca.pem, cert.pem and key.pem to each host, then: mobula start … --tls FOLDER")
    } else {
      for host in host { try issue(host, in: folder, by: authority, validity) }
    }
    print("Keep \(folder.authorityKey) where no host is: it makes more certificates.")
  }
}

private func issue(
  _ host: String, in folder: CertificateFolder, by authority: CertificateAuthority, _ validity: Range<Int>
) throws {
  let own = folder.folder(for: host)
  try own.createCertificate(of: authority, name: host, hosts: [host], validity: validity)
  print("Made a certificate for \(host) in \(own.path): copy it there, then: mobula start … --tls FOLDER")
}

struct AddCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "add", abstract: "Make certificates for more hosts, with the CA that was created before.")

  @Option(help: "The folder that `create` wrote to.") var directory: String
  @Option(help: "How long the certificates are valid.") var days = 365
  @Option(help: "A host's name or address; may be repeated.") var host: [String] = []

  func validate() throws {
    try CertificateOptions.check(days: days)
    try CertificateOptions.check(hosts: host)
    if host.isEmpty { throw ValidationError("Give the hosts with --host.") }
  }

  func run() async throws {
    let folder = CertificateFolder(directory)
    let authority = try folder.readAuthority()
    for host in host { try issue(host, in: folder, by: authority, CertificateOptions.validity(days: days)) }
  }
}

struct ShowCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Print what certificates are in a folder, and when they expire.")

  @Option(help: "The folder that `create` wrote to, or a host's.") var directory: String
  @Flag(help: "Print JSON.") var json = false

  private struct Entry: Codable {
    var file: String
    var subject: String
    var issuer: String
    var names: [String]
    var expiry: Date
    var isAuthority: Bool
    var hasExpired: Bool
  }

  func run() async throws {
    var files = [directory + "/ca.pem", directory + "/cert.pem"]
    let folders = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    files += folders.sorted().map { "\(directory)/\($0)/cert.pem" }
    var entries: [Entry] = []
    for file in files where access(file, F_OK) == 0 {
      let summary: CertificateSummary
      do throws(MobulaError) {
        summary = try CertificateSummary(file: file)
      } catch {
        throw MobulaError(error.code, "\(file): \(error.message)")
      }
      let expiry = Date(timeIntervalSince1970: Double(summary.validity.upperBound))
      entries.append(
        Entry(
          file: file, subject: summary.subject, issuer: summary.issuer, names: summary.names, expiry: expiry,
          isAuthority: summary.isAuthority, hasExpired: expiry <= .now))
    }
    guard !entries.isEmpty else {
      throw MobulaError(.notFound, "No certificates are in \(directory): make some with `mobula certificates create`.")
    }
    if json { return try printJSON(entries) }
    for entry in entries {
      print(entry.file)
      print("  subject  \(entry.subject)\(entry.isAuthority ? " (CA)" : "")")
      if !entry.isAuthority { print("  issuer   \(entry.issuer)") }
      if !entry.names.isEmpty { print("  names    \(entry.names.joined(separator: ", "))") }
      print("  expires  \(entry.expiry.formatted(.iso8601))\(entry.hasExpired ? ", and has expired" : "")")
    }
  }
}

struct InstallCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "install", abstract: "Give the host here other certificates, while it runs.",
    discussion: """
      Head, host, pods and workers use them for their next connections; those that there are go on. ca.pem may have \
      several CAs: with the old and the new one on all hosts first, a cluster can change its CA. One with none of the \
      CAs that the host has now is refused, unless --replace-ca is given.

      Example:
        mobula certificates install new-tls
      """)

  @Argument(help: "A folder with ca.pem, cert.pem and key.pem.") var folder: String
  @Flag(
    name: .customLong("replace-ca"), help: "Also with another CA, which parts this host from those with the old one.")
  var replacesAuthority = false
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    let directory = directory.runDirectory
    let folder = CertificateFolder(folder)
    let tls = try ClusterTLS(folder)
    try tls.checkItself()
    let started = try directory.readConfiguration()
    let copy = CertificateFolder(HostPaths.certificates(in: directory.path))
    guard access(copy.path, F_OK) == 0 else {
      throw MobulaError(
        .mismatch, "The host in \(directory.path) was started without TLS: stop it, and start it with --tls.")
    }
    guard try replacesAuthority || folder.sharesAuthority(with: copy) else {
      throw MobulaError(
        .mismatch,
        """
        No CA in \(folder.authority) is one that the cluster has now, so hosts with it and those without could not prove \
        themselves to each other: put the old CA into that file as well, or give --replace-ca.
        """)
    }
    if let state = started.state { try folder.copy(to: StateDirectory(path: state).certificates) }
    try folder.copy(to: copy)
    print("Installed \(tls), for all new connections.")
  }
}
