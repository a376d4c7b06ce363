public struct JobStart: Codable, Sendable {
  /// Whether the driver comes back after it lost its connection, with `resumeJob`.
  public var resumes: Bool?

  public init(resumes: Bool? = nil) { self.resumes = resumes }
}

public struct JobReply: Codable, Sendable {
  public var job: JobID
  /// Who has it is the job's driver, at whichever head.
  public var secret: JobSecret?

  public init(job: JobID, secret: JobSecret? = nil) {
    self.job = job
    self.secret = secret
  }
}

public struct JobResumption: Codable, Sendable {
  public var job: JobID
  public var secret: JobSecret
  /// The leases that the driver has: those that no pod has are revoked, and others of the job are given back.
  public var leases: [LeaseID]

  public init(job: JobID, secret: JobSecret, leases: [LeaseID]) {
    self.job = job
    self.secret = secret
    self.leases = leases
  }
}

public struct LeaseClaims: Codable, Sendable {
  public var job: JobID
  public var leases: [LeaseID]

  public init(job: JobID, leases: [LeaseID]) {
    self.job = job
    self.leases = leases
  }
}

public struct JobEnd: Codable, Sendable {
  public var job: JobID
  public var secret: JobSecret

  public init(job: JobID, secret: JobSecret) {
    self.job = job
    self.secret = secret
  }
}

public struct DriverEnded: Codable, Sendable {
  public var host: HostID
  public var job: JobID

  public init(host: HostID, job: JobID) {
    self.host = host
    self.job = job
  }
}
