internal import MobulaCore

/// Who may call what: every method of every process, in one place.
///
/// The cluster token is not listed, since it may call all of them. A connection that a process made itself is not
/// checked: the peer has proved that it has the token that was shown to it, and is offered nothing that it shouldn't use.
package enum MethodRights {
  private static let jobs: Set<TokenRole> = [.driver, .worker]
  private static let processes: Set<TokenRole> = [.driver, .worker, .tool]
  private static let everybody: Set<TokenRole> = [.driver, .worker, .tool, .viewer]
  private static let nobody: Set<TokenRole> = []

  package static let roles: [String: Set<TokenRole>] = [
    // Hosts and heads, which have the cluster token.
    "head.registerHost": nobody, "head.registerMore": nobody, "head.leave": nobody, "head.replicasChanged": nobody,
    "head.holdsChanged": nobody, "head.locate": nobody, "head.transferEnded": nobody, "head.claim": nobody,
    "head.claimAll": nobody, "head.setNames": nobody,
    "head.takePart": nobody, "head.partsFailed": nobody, "head.damaged": nobody, "head.driverEnded": nobody,
    "head.rotateToken": nobody,
    // Answered on connections that the answering process made.
    "host.drop": nobody, "host.keep": nobody, "host.names": nobody, "host.order": nobody, "host.orderProgress": nobody,
    "host.rotateToken": nobody, "member.alive": nobody, "pod.grantLease": nobody, "pod.releaseLease": nobody,
    "pod.runActor": nobody, "pod.endActor": nobody, "member.runActor": nobody, "member.endActor": nobody,
    "member.headHeard": nobody,
    "driver.leaseRevoked": nobody, "driver.output": nobody,

    "head.registerPod": [.pod], "head.confirmPod": [.pod], "head.leaseLost": [.pod], "head.leaseLent": [.pod],
    "head.output": [.pod], "head.hears": [.pod],
    "pod.workerReady": [.worker], "pod.leaseLent": [.worker],

    "head.startJob": [.driver], "head.resumeJob": [.driver], "head.endJob": [.driver],
    "head.claimLeases": [.worker], "head.requestLease": jobs, "head.returnLease": jobs, "head.explainLease": jobs,
    "head.jobToken": jobs, "head.startActor": jobs, "head.actor": processes, "head.stopActor": processes,
    "worker.work": jobs, "worker.push": jobs, "worker.recall": jobs, "worker.cancel": jobs, "worker.ended": nobody,
    "worker.recalled": nobody, "worker.storing": nobody,
    "worker.call": jobs, "worker.cancelCalls": jobs, "worker.returned": nobody,
    "worker.storingCall": nobody, "member.mayEnd": nobody,

    "head.status": everybody, "head.resolve": everybody, "head.waitForObjects": everybody,
    "head.list": [.driver, .tool, .viewer], "head.actors": everybody,
    "head.progress": [.driver, .tool, .viewer], "head.bring": processes,
    "head.setName": [.driver, .tool], "head.removeName": [.driver, .tool], "head.remove": processes,
    "head.forgetHost": [.tool],
    "head.drainHost": [.tool],

    "host.welcome": processes, "host.attach": processes, "host.registerHolds": processes, "host.leave": processes,
    "host.holdsChanged": processes, "host.confirmHolds": processes, "host.setName": processes,
    "host.removeName": processes, "host.bring": processes, "host.fetch": processes, "host.fetchSmall": processes,
    "host.listS3": processes,
    "host.drives": [.driver],
    "host.resolve": everybody, "host.progress": everybody, "host.origins": everybody, "host.state": everybody,
    "host.statistics": everybody,

    // The bench has a token of its own.
    "bench.counters": nobody, "bench.failed": nobody, "bench.fault": nobody, "bench.finished": nobody,
  ]

  /// - Throws: `MobulaError` (`denied`) when who has this authority may not call the method.
  static func check(_ method: String, _ authority: Authority) throws(MobulaError) {
    guard let role = authority.role else { return }
    let allowed = roles[method] ?? nobody
    guard !allowed.contains(role) else { return }
    let needed =
      allowed.isEmpty
      ? "the cluster token" : allowed.map(\.possessive).sorted().joined(separator: " or ") + " token, or the cluster's"
    throw MobulaError(
      .denied, "\(authority.title) may not call \"\(method)\": that needs \(allowed.isEmpty ? "" : "a ")\(needed).")
  }
}
