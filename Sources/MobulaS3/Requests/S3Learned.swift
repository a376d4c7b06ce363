internal import MobulaCore
internal import Synchronization

/// What answers have taught about the service: in which region a bucket is, and how far this host's clock is off.
/// Each is believed once a request, so that no answer sends requests in circles.
final class S3Learned: Sendable {
  private struct State {
    var regions: [String: String] = [:]
    /// Seconds by which S3's clock is ahead of this host's.
    var clockOffset = 0
    /// Buckets of which objects may be read, but not by the names of their versions.
    var refusingVersions: Set<String> = []
  }

  /// What a request is signed with.
  struct Signing: Sendable {
    /// With the region that the bucket is known to be in.
    var configuration: S3Configuration
    /// As `S3Learned.clockOffset`.
    var clockOffset: Int
  }

  /// Regions remembered, so that a program that meets many buckets does not grow without end.
  private static let maximumRegions = 4096

  private let state = Mutex(State())

  var clockOffset: Int { state.withLock { $0.clockOffset } }

  /// `configuration`, with the region that `bucket` is known to be in.
  func configuration(_ configuration: S3Configuration, for bucket: String) -> S3Configuration {
    guard let region = state.withLock({ $0.regions[bucket] }) else { return configuration }
    var configuration = configuration
    configuration.region = region
    return configuration
  }

  /// What a request to `bucket` is to be signed with by now.
  func signing(_ configuration: S3Configuration, for bucket: String) -> Signing {
    Signing(configuration: self.configuration(configuration, for: bucket), clockOffset: clockOffset)
  }

  /// Takes in what `error` says of region or clock.
  ///
  /// - Parameter signing: what the request was signed with that failed: others, sent at the same time, may have taught
  ///   the same meanwhile.
  /// - Returns: whether the same request, signed anew, may succeed now.
  func learn(from error: S3Error, signedWith signing: Signing) -> Bool {
    if let region = Self.region(in: error) {
      guard region != signing.configuration.region else { return false }
      return state.withLock { state in
        guard state.regions[error.bucket] != nil || state.regions.count < Self.maximumRegions else { return false }
        state.regions[error.bucket] = region
        return true
      }
    }
    guard error.code == "RequestTimeTooSkewed", let time = error.serverTime else { return false }
    let offset = time - SigV4Timestamp.secondsSince1970()
    // What was corrected by this much already is not made right by correcting it again.
    guard abs(offset - signing.clockOffset) > 60 else { return false }
    state.withLock { $0.clockOffset = offset }
    return true
  }

  /// Whether this host was shown that it may not name versions in `bucket`.
  func refusesVersions(of bucket: String) -> Bool { state.withLock { $0.refusingVersions.contains(bucket) } }

  func versionsAreRefused(of bucket: String) {
    state.withLock { if $0.refusingVersions.count < Self.maximumRegions { $0.refusingVersions.insert(bucket) } }
  }

  /// As if an answer had shown that S3's clock is ahead by so many seconds.
  func believe(clockOffset: Int) { state.withLock { $0.clockOffset = clockOffset } }

  /// The region that an answer sends to.
  private static func region(in error: S3Error) -> String? {
    switch (error.code, error.httpStatus) {
    case (_, 301), (_, 307), ("AuthorizationHeaderMalformed", _): break
    // HEAD has no text that would say so.
    case ("400", 400): break
    default: return nil
    }
    // It becomes part of a host name.
    guard let region = error.region, 1...32 ~= region.utf8.count,
      region.allSatisfy({ $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "-") })
    else { return nil }
    return region
  }
}
