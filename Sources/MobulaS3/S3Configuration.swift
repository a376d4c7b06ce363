public import MobulaCore

/// Where S3 is and how patiently it is asked.
public struct S3Configuration: Sendable {
  /// `nil` for AWS itself in `region`. With an endpoint, buckets are named in the path, else in the host name.
  public var endpoint: S3Endpoint?
  /// The region that requests are signed for; `us-east-1` by default.
  public var region: String
  /// How often a request that failed for the moment is made again, and after what pause.
  public var retry = S3RetryPolicy()
  /// Time to connect; 5 s by default.
  public var connectTimeout = Duration.seconds(5)
  /// Time without a byte of the answer after which a request has failed; 15 s by default.
  public var idleTimeout = Duration.seconds(15)
  /// Deadline of a request without payload; 30 s by default.
  public var requestTimeout = Duration.seconds(30)
  /// A payload of n bytes adds n / `minimumRate` seconds to the deadline; 1 MB (a second) by default.
  public var minimumRate = ByteCount.megabytes(1)
  /// Connections held open to the endpoint; 16 by default.
  public var maximumConnections = 16

  public init(endpoint: S3Endpoint? = nil, region: String = "us-east-1") {
    self.endpoint = endpoint
    self.region = region
  }

  /// Takes the region from `AWS_REGION` or `AWS_DEFAULT_REGION`, and the endpoint
  /// from the argument, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`: the first that is set.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) for an endpoint that is none.
  public static func fromEnvironment(
    endpoint: String? = nil, _ environment: [String: String] = currentEnvironment()
  ) throws(MobulaError) -> S3Configuration {
    try fromEnvironment(endpoint: endpoint, environment, shared: SharedConfig())
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
      region: first("AWS_REGION", "AWS_DEFAULT_REGION") ?? region ?? "us-east-1")
    if let text = endpoint ?? first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") ?? profile {
      configuration.endpoint = try S3Endpoint(text)
    }
    return configuration
  }

  /// What a request with a payload of `bytes`, sent or received, may take.
  func deadline(payload bytes: Int) -> Duration {
    requestTimeout + .seconds(Double(bytes) / Double(max(1, minimumRate.bytes)))
  }

  /// The endpoint as messages name it, and where buckets are named in the path.
  public var baseEndpoint: S3Endpoint {
    endpoint ?? S3Endpoint(scheme: .https, host: "s3.\(region).amazonaws.com")
  }

  /// Where a bucket answers, and whether its name goes into the path.
  func address(of bucket: String) -> (endpoint: S3Endpoint, inPath: Bool) {
    // A name with a dot matches no wildcard certificate, and one with other
    // characters is no host name.
    let isHostName = bucket.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "-") }
    if endpoint != nil || !isHostName { return (baseEndpoint, true) }
    return (S3Endpoint(scheme: .https, host: "\(bucket).\(baseEndpoint.host)"), false)
  }
}
