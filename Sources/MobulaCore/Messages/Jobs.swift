package struct JobStart: Codable, Sendable {
  /// Whether the driver comes back after it lost its connection, with `resumeJob`.
  package var resumes: Bool?

  package init(resumes: Bool? = nil) { self.resumes = resumes }
}

package struct JobReply: Codable, Sendable {
  package var job: JobID
  /// Who has it is the job's driver, at whichever head.
  package var secret: JobSecret?

  package init(job: JobID, secret: JobSecret? = nil) {
    self.job = job
    self.secret = secret
  }
}

package struct JobResumption: Codable, Sendable {
  package var job: JobID
  package var secret: JobSecret
  /// The leases that the driver has: those that no pod has are revoked, and others of the job are given back.
  package var leases: [LeaseID]

  package init(job: JobID, secret: JobSecret, leases: [LeaseID]) {
    self.job = job
    self.secret = secret
    self.leases = leases
  }
}

package struct LeaseClaims: Codable, Sendable {
  package var job: JobID
  package var leases: [LeaseID]

  package init(job: JobID, leases: [LeaseID]) {
    self.job = job
    self.leases = leases
  }
}

package struct JobEnd: Codable, Sendable {
  package var job: JobID
  package var secret: JobSecret

  package init(job: JobID, secret: JobSecret) {
    self.job = job
    self.secret = secret
  }
}

package struct DriverEnded: Codable, Sendable {
  package var host: HostID
  package var job: JobID

  package init(host: HostID, job: JobID) {
    self.host = host
    self.job = job
  }
}
