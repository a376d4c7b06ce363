public import MobulaCore

/// What somebody may do who has proved that it has a token.
public struct Authority: Hashable, Sendable {
  /// `nil` for the cluster token, which is every right.
  public let role: TokenRole?
  /// The only job that it may touch, if there is one.
  public let job: JobID?
  /// Seconds since 1970.
  public let expires: Int64?
  public let name: String?

  /// That of the cluster token.
  public static let everything = Authority(role: nil, job: nil, expires: nil, name: nil)

  private init(role: TokenRole?, job: JobID?, expires: Int64?, name: String?) {
    self.role = role
    self.job = job
    self.expires = expires
    self.name = name
  }

  /// That of a token with these claims, from the cluster token on.
  ///
  /// - Throws: `MobulaError` (`denied`) where one step gives more than the one before had.
  init(_ chain: [TokenClaims]) throws(MobulaError) {
    var (role, job, expires, name): (TokenRole?, JobID?, Int64?, String?) = (nil, nil, nil, nil)
    for claims in chain {
      if let role, !role.makes.contains(claims.role) {
        throw MobulaError(
          .denied, "From a \(role.possessive) token none for a \(claims.role) can be made: take the cluster token.")
      }
      role = claims.role
      guard (claims.role == .worker) == (claims.job != nil) else {
        throw MobulaError(.denied, "A worker's token is for one job, and no other token is: it names a role and a job.")
      }
      guard job == nil || job == claims.job else {
        throw MobulaError(.denied, "From the token of a job none of another job can be made: take the cluster token.")
      }
      job = claims.job
      expires = [expires, claims.expires].compactMap(\.self).min()
      name = claims.name ?? name
    }
    self.init(role: role, job: job, expires: expires, name: name)
  }

  /// As sentences call who has it: `A worker's token (job 7)`.
  package var title: String {
    guard let role else { return "The cluster token" }
    let of = job.map { " (job \($0))" } ?? ""
    return "A \(role.possessive) token\(of)"
  }

  /// - Parameter now: seconds since 1970.
  /// - Throws: `MobulaError` (`denied`).
  func check(at now: Int64) throws(MobulaError) {
    guard let expires, expires <= now else { return }
    let which = name.map { " (\($0.prefix(TokenClaims.longestName)))" } ?? ""
    throw MobulaError(
      .denied,
      "\(title)\(which) expired at \(utcText(expires)): get another, as `mobula token create` makes them."
    )
  }

  /// - Throws: `MobulaError` (`denied`) unless it is the cluster token.
  package static func checkIsCluster(_ authority: Authority) throws(MobulaError) {
    guard authority.role != nil else { return }
    throw MobulaError(
      .denied, "\(authority.title) is not enough to read other hosts' stores: that needs the cluster token.")
  }
}
