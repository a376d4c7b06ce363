package import MobulaCore

extension ClusterStatus {
  /// The whole of it, page by page.
  ///
  /// - Parameter ask: asks the head for a page.
  package static func reading(_ ask: (StatusRequest) async throws -> ClusterStatus) async throws -> ClusterStatus {
    var status = try await ask(StatusRequest())
    var page = status
    while page.more == true {
      let next = StatusRequest(
        afterHost: status.hosts.last?.host, afterPod: status.pods.last?.pod, afterJob: status.jobs.last)
      page = try await ask(next)
      // A page that brings nothing would come again and again.
      guard !page.hosts.isEmpty || !page.pods.isEmpty || !page.jobs.isEmpty else { break }
      status.hosts += page.hosts
      status.pods += page.pods
      status.jobs += page.jobs
    }
    status.more = nil
    return status
  }
}

extension ObjectListing {
  /// Hands every object to `page`, some thousand at a time.
  ///
  /// - Parameter ask: asks the head for a page.
  package static func reading(
    _ ask: (ListRequest) async throws -> [ObjectListing], _ page: ([ObjectListing]) async throws -> Void
  ) async throws {
    let limit = 4096
    var request: ListRequest? = ListRequest(limit: limit)
    // One with more names than fit into a page comes in several, one after the other.
    var open: ObjectListing?
    while let asked = request {
      var objects = try await ask(asked)
      request = ListRequest.next(after: objects, limit: limit)
      if var whole = open {
        if let first = objects.first, first.object == whole.object {
          whole.names += first.names
          whole.furtherNames = first.furtherNames
          objects.removeFirst()
        } else {
          whole.furtherNames = nil
        }
        objects.insert(whole, at: 0)
        open = nil
      }
      if objects.last?.furtherNames != nil { open = objects.removeLast() }
      if !objects.isEmpty { try await page(objects) }
    }
  }
}
