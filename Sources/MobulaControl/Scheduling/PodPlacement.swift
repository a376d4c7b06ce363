import MobulaCore

/// How to choose among the pods that can hold a lease.
enum PlacementRule: Hashable, Sendable {
  /// The pod with the least left, so that large demands find room elsewhere.
  case pack
  /// The host, and there the pod, with the fewest leases.
  case spread
  /// A pod of this host only; the one with the fewest leases.
  case host(HostID)
}

/// A pod as placement sees it.
struct PodView: Hashable, Sendable {
  var pod: PodID
  var host: HostID
  /// What it has in all.
  var total: Resources
  /// What is neither leased nor promised.
  var free: Resources
  var leases: Int
}

/// Placement as a pure function of cluster view, demand and rule.
enum PodPlacement {
  /// Whether the pod could hold the demand if it were idle.
  static func isFeasible(_ pod: PodView, _ demand: Resources, _ rule: PlacementRule) -> Bool {
    if case .host(let host) = rule, pod.host != host { return false }
    return pod.total.covers(demand)
  }

  /// The pod that shall hold `demand` now; `nil` when none has it free.
  static func choose(_ pods: [PodView], _ demand: Resources, _ rule: PlacementRule) -> PodID? {
    var leasesOfHost: [HostID: Int] = [:]
    for pod in pods { leasesOfHost[pod.host, default: 0] += pod.leases }
    return pods.filter { isFeasible($0, demand, rule) && $0.free.covers(demand) }.map { pod in
      let key: (Double, Int)
      switch rule {
      case .pack: key = (1 - usedShare(of: pod, with: demand), -pod.leases)
      case .spread, .host: key = (Double(leasesOfHost[pod.host] ?? 0), pod.leases)
      }
      return (key: key, pod: pod.pod)
    }.min { ($0.key.0, $0.key.1, $0.pod) < ($1.key.0, $1.key.1, $1.pod) }?.pod
  }

  /// The largest share, from 0 to 1, that would be used of any resource of the pod.
  private static func usedShare(of pod: PodView, with demand: Resources) -> Double {
    pod.total.amounts.map { name, total in
      Double((total - pod.free[name] + demand[name]).tenThousandths) / Double(total.tenThousandths)
    }.max() ?? 0
  }
}
