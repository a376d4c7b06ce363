import ArgumentParser
import Mobula
import MobulaCore
import MobulaWire

/// A head that is asked directly, without a host on this machine.
struct RemoteHead {
  let endpoint: Endpoint
  let token: ClusterToken
  let tls: ClusterTLS?

  func withConnection<Result>(_ body: (RPCConnection) async throws -> Result) async throws -> Result {
    let connection = try await RPCConnection.connect(
      to: endpoint, token: token, hello: Hello(role: .tool, name: "mobula"), tls: tls)
    do {
      let result = try await body(connection)
      await connection.close()
      return result
    } catch {
      await connection.close()
      throw error
    }
  }

  /// All pages of the cluster's state.
  static func status(_ connection: RPCConnection) async throws -> ClusterStatus {
    try await ClusterStatus.reading { try await connection.call(HeadAPI.status, $0) }
  }

  /// Pages of the objects.
  static func list(_ connection: RPCConnection, _ page: ([ObjectListing]) async throws -> Void) async throws {
    try await ObjectListing.reading({ try await connection.call(HeadAPI.list, $0) }, page)
  }
}

/// Asks a head by its address, from anywhere, with a token that may see what is asked.
struct RemoteOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Ask the head at HOST:PORT, without a host on this machine; with --token-file.", valueName: "host:port"))
  var address: String?
  @Option(help: "For --address: a file with a token, such as a viewer's (`mobula token create`).")
  var tokenFile: String?
  @Option(help: "For --address: the folder with this side's certificates, where the cluster uses TLS.")
  var tls: String?

  func validate() throws {
    guard let address else {
      if tokenFile != nil || tls != nil { throw ValidationError("--token-file and --tls are for --address HOST:PORT.") }
      return
    }
    guard case .tcp(_, let port)? = Endpoint(address), port > 0 else {
      throw ValidationError("\"\(address)\" is no HOST:PORT for --address: write it as 10.0.0.1:7600 or [::1]:7600.")
    }
    if tokenFile == nil { throw ValidationError("--address needs --token-file: a token that the cluster takes.") }
    for (path, flag) in [(tokenFile, "--token-file"), (tls, "--tls")] where path == "" {
      throw ValidationError("\(flag) takes a path, which can't be empty.")
    }
  }

  /// `nil` where no address was given.
  var head: RemoteHead? {
    get throws {
      guard let address, let endpoint = Endpoint(address), let tokenFile else { return nil }
      return RemoteHead(
        endpoint: endpoint, token: try ClusterToken.read(file: tokenFile),
        tls: try tls.map { try ClusterTLS(CertificateFolder($0)) })
    }
  }
}
