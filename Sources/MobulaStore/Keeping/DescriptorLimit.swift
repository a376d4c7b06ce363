internal import Glibc

/// How many descriptors this process may have.
public func descriptorLimit() -> Int {
  var limit = rlimit()
  guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 0 }
  return Int(clamping: limit.rlim_cur)
}

/// Raises how many descriptors this process may have to the most that the system lets it, and returns that.
///
/// Children that are started later inherit it.
@discardableResult
public func raiseDescriptorLimit() -> Int {
  var limit = rlimit()
  let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
  if getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max {
    limit.rlim_cur = limit.rlim_max
    // A failure leaves the limit as it was, which the result tells.
    _ = setrlimit(resource, &limit)
  }
  return descriptorLimit()
}
