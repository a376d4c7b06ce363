public import MobulaCore

/// Where a request names its bucket.
public enum S3Addressing: String, Sendable, Hashable, CaseIterable {
  /// In the host name at AWS, where the bucket's name can be part of one; in the path everywhere else.
  case automatic
  /// `https://HOST/BUCKET/KEY`
  case path
  /// `https://BUCKET.HOST/KEY`; in the path where the bucket's name can't be part of a host name, or the host is an
  /// address.
  case virtualHosted
}

/// Where S3 is and how patiently it is asked.
public struct S3Configuration: Sendable {
  /// `nil` for AWS itself in `region`.
  public var endpoint: S3Endpoint?
  /// Where buckets are named; `automatic` by default.
  public var addressing = S3Addressing.automatic
  /// The region that requests are signed for; `us-east-1` by default.
  public var region: String
  /// How often a request that failed for the moment is made again, and after what pause. A service that goes away in the
  /// middle of an object is waited for, for a minute.
  public var retry = S3RetryPolicy(patience: .seconds(60))
  /// Time to connect; 5 s by default.
  public var connectTimeout = Duration.seconds(5)
  /// Time without a byte of the answer after which a request has failed; 15 s by default.
  public var idleTimeout = Duration.seconds(15)
  /// Time to the head of the answer to a request without payload; 30 s by default.
  public var requestTimeout = Duration.seconds(30)
  /// Time after which a request has failed of whose payload nothing more was taken, or confirmed to have come; 60 s by
  /// default.
  public var stallTimeout = Duration.seconds(60)
  /// A payload of n bytes adds n / `minimumRate` seconds to the time for the head of the answer: so long what was sent
  /// may be on its way. 10 kB (a second) by default, since a link that stalls is found by `stallTimeout`.
  public var minimumRate = ByteCount(10_000)
  /// Whether uploads carry a CRC32C, which S3 checks and keeps; true by default. For services that refuse one, `false`,
  /// which is `AWS_REQUEST_CHECKSUM_CALCULATION=when_required`.
  public var uploadChecksums = true
  /// From this size on, what is not in memory is uploaded in parts; 64 MiB by default, and 5 GB at most, as S3 takes
  /// no more by one PUT.
  public var multipartThreshold = ByteCount(64 * 1_048_576)
  /// Bytes of a part, 16 MiB by default; more where it would take more than 10,000 parts. S3 wants at least 5 MiB.
  public var uploadPartSize = ByteCount(16 * 1_048_576)
  /// From this size on, copies within the service go in parts; 5 GB by default, as S3 copies no more at once.
  public var maximumCopySize = ByteCount(5 * 1_073_741_824)
  /// A PEM file of certificates to trust instead of the system's, for an endpoint with one of its own; the system's by
  /// default.
  public var trustedRoots: String?
  /// The proxy that requests go through; none by default.
  public var proxy: S3Proxy?
  /// Whether requests are signed; true by default. Without a signature no credentials are asked for.
  public var signsRequests = true
  /// Whether whoever asks agrees to pay for the requests; false by default.
  public var paysForRequests = false
  /// Connections to the endpoint at once, at most; 64 by default. A transfer uses as many as bring more bytes.
  public var maximumConnections = 64

  public init(endpoint: S3Endpoint? = nil, region: String = "us-east-1") {
    self.endpoint = endpoint
    self.region = region
  }

  /// Takes the region from `AWS_REGION` or `AWS_DEFAULT_REGION`, and the endpoint
  /// from the argument, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`: the first that is set. `AWS_CA_BUNDLE` names the
  /// `trustedRoots`, `AWS_REQUEST_CHECKSUM_CALCULATION` says whether there are `uploadChecksums`.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) for an endpoint that is none, and for other words than AWS has.
  package static func fromEnvironment(
    endpoint: String? = nil, _ environment: [String: String] = currentEnvironment()
  ) throws(MobulaError) -> S3Configuration {
    try fromEnvironment(endpoint: endpoint, environment, shared: SharedConfig())
  }

  /// Finds out at a start what would fail with the first request, which may be long after.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) where `AWS_CA_BUNDLE` or `VAULT_CACERT` name no certificates.
  package static func checkTrustedRoots(_ environment: [String: String] = currentEnvironment()) throws(MobulaError) {
    let usesVault = environment["MOBULA_VAULT_ADDR"] != nil || environment["MOBULA_VAULT_AUTH"] != nil
    for name in ["AWS_CA_BUNDLE"] + (usesVault ? ["VAULT_CACERT"] : []) {
      if let path = environment[name], !path.isEmpty { try TrustedRoots.check(path, namedBy: name) }
    }
  }

  /// As above; what the environment does not say is taken from the profile of AWS's shared files.
  static func fromEnvironment(
    endpoint: String?, _ environment: [String: String], shared: SharedConfig
  ) throws(MobulaError) -> S3Configuration {
    func first(_ names: String...) -> String? {
      names.lazy.compactMap { environment[$0] }.first { !$0.isEmpty }
    }
    let (region, profile) = (try shared.region(), try shared.endpoint(of: "s3", environment))
    var configuration = S3Configuration(
      region: try checked(region: first("AWS_REGION", "AWS_DEFAULT_REGION") ?? region ?? "us-east-1"))
    configuration.trustedRoots = try shared.trustedRoots(environment)
    if let roots = configuration.trustedRoots {
      try TrustedRoots.check(
        roots, namedBy: first("AWS_CA_BUNDLE") == nil ? "ca_bundle in AWS's config" : "AWS_CA_BUNDLE")
    }
    if let text = endpoint ?? first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") ?? profile {
      configuration.endpoint = try S3Endpoint(text)
    }
    if let word = first("AWS_REQUEST_CHECKSUM_CALCULATION") {
      switch word.lowercased() {
      case "when_supported": break
      case "when_required": configuration.uploadChecksums = false
      default:
        throw MobulaError(
          .invalidArgument,
          "AWS_REQUEST_CHECKSUM_CALCULATION is when_supported or when_required, and not \"\(word.printable)\".")
      }
    }
    configuration.proxy = try S3Proxy.of(configuration.baseEndpoint, environment)
    return configuration
  }

  /// A region is a part of host names and of signatures: what can be neither would be said to be a wrong key.
  static func checked(region: String) throws(MobulaError) -> String {
    guard region.utf8.allSatisfy({ $0 < 0x80 }), region.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "-" }) else {
      throw MobulaError(
        .invalidArgument,
        "\"\(region.printable)\" is no region: correct AWS_REGION, AWS_DEFAULT_REGION or the profile's, as in eu-west-1."
      )
    }
    return region
  }

  /// What S3 moves a second at least when it copies or puts together what it has.
  private static let movedRate = 1e6

  /// How long the head of an answer to a request may take.
  ///
  /// - Parameters:
  ///   - sent: bytes of the request's payload.
  ///   - moved: bytes that S3 moves by itself before it answers.
  func deadline(sent: Int, moved: Int = 0) -> Duration {
    requestTimeout + .seconds(Double(sent) / Double(max(1, minimumRate.bytes)) + Double(moved) / Self.movedRate)
  }

  /// The endpoint as messages name it, and where buckets are named in the path.
  public var baseEndpoint: S3Endpoint {
    // China is a partition of AWS with a domain of its own.
    endpoint
      ?? S3Endpoint(
        scheme: .https, host: "s3.\(region).amazonaws.com\(region.hasPrefix("cn-") ? ".cn" : "")")
  }

  /// Where a bucket answers, and whether its name goes into the path.
  func address(of bucket: String) -> (endpoint: S3Endpoint, inPath: Bool) {
    let base = baseEndpoint
    guard namesInHost(bucket) else { return (base, true) }
    return (S3Endpoint(scheme: base.scheme, host: "\(bucket).\(base.host)", port: base.port), false)
  }

  /// The proxy of requests without TLS, which is spoken to in the endpoint's place: with TLS it only connects.
  var plainProxy: S3Proxy? { baseEndpoint.scheme == .http ? proxy : nil }

  private func namesInHost(_ bucket: String) -> Bool {
    let isLabel = !bucket.isEmpty && bucket.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "-") }
    switch addressing {
    case .path: return false
    // A name with a dot matches no wildcard certificate, and one with other characters is no host name.
    case .automatic: return endpoint == nil && isLabel
    case .virtualHosted:
      let host = baseEndpoint.host
      let isAddress = host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." }
      return !isAddress
        && bucket.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
          !label.isEmpty && label.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "-") }
        }
    }
  }
}
