import MobulaCore

extension PlannedCase {
  /// Bytes of the model that have to cross the hosts' interfaces: once a receiving host, or once a loader.
  func payload(size: Int) -> Int {
    switch kind {
    case .replication: size * Set(loaders.map(\.host)).subtracting([maker.host]).count
    case .s3Direct: size * loaders.count
    case .s3Planned: size * Set(loaders.map(\.host)).count
    }
  }

  /// The loaders whose times count: those that nothing befalls.
  var measured: [Int] { loaders.indices.filter { loaders[$0].host != fault?.host } }

  /// Whether loaders may go without the model: the fault takes its only replica.
  var mayFail: Bool { fault.map { $0.kind == .killed && $0.host == maker.host && holders.isEmpty } ?? false }

  /// Bytes that have to leave S3 while the clock runs.
  func fromS3(size: Int) -> Int {
    switch kind {
    case .replication: 0
    case .s3Direct: size * loaders.count
    case .s3Planned: size
    }
  }

  /// What a run shows that can't be if the bytes went the way that the case says; `nil` when all is right.
  func problem(with run: BenchRun, size: Int) -> String? {
    for loader in run.loaders {
      // Away, as the head says, since nobody can know that it won't come back.
      if let error = loader.error, error.code != .notFound, error.code != .unavailable {
        return "\(id): host \(loader.host) was not told that the model can't be had, but \"\(error.message)\"."
      }
    }
    if fault != nil {
      guard let seconds = run.faultSeconds, seconds < run.slowest else {
        return "\(id): the hosts had the model before anything befell one of them: take a larger --size."
      }
      // A fault may cost bytes, and the host that it befalls has none.
      return nil
    }
    if let bytes = run.s3Bytes, bytes != fromS3(size: size) {
      return "\(id): \(bytes) bytes left S3 and not \(fromS3(size: size))."
    }
    // Headers and acknowledgements; on top, a little for the calls between the processes.
    let payload = payload(size: size)
    if let bytes = run.wireBytes, bytes < payload || bytes > payload + payload * 6 / 100 + 1_000_000 {
      return "\(id): \(bytes) bytes crossed the interfaces where \(payload) and at most 6 % more were due."
    }
    for (place, loader) in zip(loaders, run.loaders) where loader.bytesCopied != 0 {
      if case .replication = kind, place.host == maker.host {
        return "\(id): \(loader.bytesCopied) bytes were copied for a loader on the object's own host."
      }
    }
    return nil
  }
}
