internal import MobulaCore

/// What the head tells a host to do with its replicas and names.
enum HostOrder: Sendable {
  case drop(DropRequest)
  case keep(KeepRequest)
  case names(NameNews)

  /// How many things one order is about, at most: what is more goes into the next.
  private static let limit = 4096

  /// How long more of its kind is waited for, so that one call tells a host of all: names are a spare for what the head
  /// knows, and come one by one where objects do.
  var patience: Duration {
    switch self {
    case .drop, .keep: .zero
    case .names: .milliseconds(20)
    }
  }

  /// Takes in an order that comes right after this one.
  ///
  /// - Returns: false where it has to be told by itself.
  mutating func take(_ next: HostOrder) -> Bool {
    // What is changed has to be nobody else's: each order of thousands would be copied for each that it takes in.
    let nothing = HostOrder.drop(DropRequest(objects: []))
    switch (self, next) {
    case (.drop(var request), .drop(let more)) where request.objects.count + more.objects.count <= Self.limit:
      self = nothing
      request.objects += more.objects
      request.damages.merge(more.damages) { $1 }
      self = .drop(request)
    case (.keep(var request), .keep(let more)) where request.objects.count + more.objects.count <= Self.limit:
      self = nothing
      request.objects += more.objects
      self = .keep(request)
    case (.names(var news), .names(let more)) where news.count + more.count <= Self.limit:
      self = nothing
      // A host takes names away before it gives them.
      for name in more.taken { news.given[name] = nil }
      news.taken += more.taken
      news.given.merge(more.given) { $1 }
      self = .names(news)
    default: return false
    }
    return true
  }
}

extension NameNews {
  fileprivate var count: Int { given.count + taken.count }
}

/// The orders for one host, told one after the other: of two about one thing the later one is to hold, and neither a
/// connection nor a host keeps the order of calls that run at a time.
struct HostOrderQueue: Sendable {
  /// Told, and not answered yet, is one more.
  private var waiting: [HostOrder] = []
  private(set) var isTelling = false

  /// - Returns: what is to be told now; `told` comes after it.
  mutating func add(_ order: HostOrder) -> HostOrder? {
    guard isTelling else {
      isTelling = true
      return order
    }
    if waiting.isEmpty || !waiting[waiting.count - 1].take(order) { waiting.append(order) }
    return nil
  }

  /// What is to be told in place of `order`, for which more was waited: all that came of its kind right after it.
  mutating func gathered(_ order: HostOrder) -> HostOrder {
    var order = order
    while let next = waiting.first, order.take(next) { waiting.removeFirst() }
    return order
  }

  /// The host has answered.
  ///
  /// - Returns: what is to be told next.
  mutating func told() -> HostOrder? {
    guard !waiting.isEmpty else {
      isTelling = false
      return nil
    }
    return waiting.removeFirst()
  }
}
