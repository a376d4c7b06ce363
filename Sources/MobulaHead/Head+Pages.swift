internal import MobulaControl
internal import MobulaCore

extension Head {
  /// How many objects are looked at under the lock at a time.
  private static let slice = 2048

  /// One page of the list of objects. What is looked at under the lock is little, so that others don't wait for it.
  func list(_ request: ListRequest) -> [ObjectListing] {
    var page: [ObjectListing] = []
    var budget = PageBudget()
    let limit = max(1, request.limit ?? .max)
    var after = request.after
    if let object = request.after, let name = request.afterName {
      let rest = perform { $0.listed([object], after: name) }
      // Its last names may be gone by now.
      page += rest.filter { !$0.names.isEmpty && budget.take($0.wireSize) }
      if page.last?.furtherNames != nil { return page }
    }
    var count = min(Self.slice, limit) * 8
    while true {
      let (from, next) = (after, count)
      let objects = perform { $0.objects(after: from, count: next) }
      if objects.isEmpty { return page }
      // Most may be none to be listed, as those that are held before they are made: then few looks have to do.
      count = min(count * 4, 1 << 20)
      for start in stride(from: 0, to: objects.count, by: Self.slice) {
        let slice = Array(objects[start..<min(objects.count, start + Self.slice)])
        for listing in perform({ $0.listed(slice) }) {
          guard page.count < limit, budget.take(listing.wireSize) else { return page }
          page.append(listing)
          if listing.furtherNames != nil { return page }
        }
      }
      after = objects.last
    }
  }
}
