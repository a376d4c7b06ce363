/// Which page of the list of objects: they come in the order of their identifiers, so that one that is there all the
/// time is in exactly one page, whatever comes and goes meanwhile.
///
/// Without anything it is the first page. The page after the last is empty.
package struct ListRequest: Codable, Sendable {
  /// The last object of the page before.
  package var after: ObjectID?
  /// Where that object has `furtherNames`: the last of those that came. The page begins with the object once more, and
  /// the names behind that one.
  package var afterName: Name?
  /// The most objects in the page, which has fewer where more don't fit into a frame.
  package var limit: Int?

  package init(after: ObjectID? = nil, afterName: Name? = nil, limit: Int? = nil) {
    self.after = after
    self.afterName = afterName
    self.limit = limit
  }
}

extension ListRequest {
  /// Asks for what follows a page; `nil` when there was nothing any more.
  package static func next(after page: [ObjectListing], limit: Int? = nil) -> ListRequest? {
    page.last.map {
      ListRequest(after: $0.object, afterName: $0.furtherNames == nil ? nil : $0.names.last, limit: limit)
    }
  }
}

/// Which page of the cluster's state: hosts, pods and jobs come in the order of their identifiers.
package struct StatusRequest: Codable, Sendable {
  /// The last host, pod and job of the page before.
  package var afterHost: HostID?
  package var afterPod: PodID?
  package var afterJob: JobID?

  package init(afterHost: HostID? = nil, afterPod: PodID? = nil, afterJob: JobID? = nil) {
    self.afterHost = afterHost
    self.afterPod = afterPod
    self.afterJob = afterJob
  }
}

/// How much of a list fits into a page: so many bytes, of which a frame has room for a few times as many, since they
/// are estimated.
package struct PageBudget: Sendable {
  package static let bytes = 4 << 20

  private var left: Int

  package init(bytes: Int = bytes) { left = bytes }

  package var isSpent: Bool { left <= 0 }

  /// Counts something of so many bytes, if there is room for it. A page is never empty because of one big thing.
  package mutating func take(_ bytes: Int) -> Bool {
    guard left > 0 else { return false }
    left -= bytes
    return true
  }
}

/// Parts of a list, each of which fits into a page.
///
/// - Parameters:
///   - list: all of it, in its order.
///   - size: about how many bytes one of them takes.
package func pages<Element>(of list: [Element], size: (Element) -> Int) -> [[Element]] {
  var pages: [[Element]] = []
  var budget = PageBudget()
  for element in list {
    if pages.isEmpty || !budget.take(size(element)) {
      pages.append([])
      budget = PageBudget()
      _ = budget.take(size(element))
    }
    pages[pages.count - 1].append(element)
  }
  return pages
}
