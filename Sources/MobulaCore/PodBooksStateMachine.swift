/// A pod's own books: what it has, who leases how much of it, which workers there are.
///
/// The head's picture of a pod may be old; these books decide.
package struct PodBooksStateMachine: Sendable {
  /// The life of a worker. Starting → idle or leased → leased ↔ idle → gone.
  private enum Worker: Sendable {
    /// Started for a lease; not listening yet.
    case starting(LeaseID)
    case leased(LeaseID, Endpoint)
    /// Keeps its program and job, waiting for another lease of the same.
    case idle(Endpoint)
  }

  private struct Entry: Sendable {
    var state: Worker
    var program: WorkerProgram
    var job: JobID

    var lease: LeaseID? {
      switch state {
      case .starting(let lease), .leased(let lease, _): lease
      case .idle: nil
      }
    }
  }

  package enum GrantAction: Hashable, Sendable {
    /// A worker of the same program and job is idle: it has the lease now.
    case use(WorkerID, Endpoint)
    /// The lease is in the books; a worker must be started for it.
    case start(WorkerID)
    case refuse(MobulaError)
  }

  package enum ReleaseAction: Hashable, Sendable {
    case nothing
    case keep(WorkerID)
    case stop(WorkerID)
  }

  package let total: Resources
  package private(set) var leases: [LeaseID: LeaseRecord] = [:]
  private var workers: [WorkerID: Entry] = [:]
  private var gpus: DeviceBook

  package init(total: Resources) {
    self.total = total
    gpus = DeviceBook(total: total[Resources.gpu])
  }

  /// Which of its GPUs a lease has; `nil` where the pod has none to give.
  package func gpus(of lease: LeaseID) -> [Int]? { gpus.count == 0 ? nil : gpus.devices(of: lease) }

  package var free: Resources { leases.values.reduce(total) { $0 - $1.taken } }

  /// So many leases may lend their CPU for each that the pod has: whoever has one of those has a process of its own.
  private static let lentPerCPU = 3

  /// What runs on a lease waits, and its CPU is free for others, or it goes on: then the books may be below nothing until
  /// others end.
  ///
  /// - Returns: whether the books have changed: too many don't lend at a time.
  package mutating func lent(_ lease: LeaseID, _ isLent: Bool) -> Bool {
    guard let record = leases[lease], (record.isLent == true) != isLent else { return false }
    if isLent {
      let most = max(1, (total[Resources.cpu].tenThousandths + 9_999) / 10_000) * Self.lentPerCPU
      guard leases.values.count(where: { $0.isLent == true }) < most else { return false }
    }
    leases[lease]?.isLent = isLent ? true : nil
    return true
  }

  /// The head offers a lease. `newWorker` names the worker should one have to be started.
  package mutating func offered(_ request: LeaseRequest, newWorker: WorkerID) -> GrantAction {
    guard leases[request.lease] == nil else {
      return .refuse(MobulaError(.alreadyExists, "Lease \(request.lease) was granted before."))
    }
    guard request.demand.arePlausible else {
      return .refuse(
        MobulaError(
          .invalidArgument,
          "A lease can't be of \(request.demand): amounts are positive, and at most 25 TB of memory."))
    }
    do throws(MobulaError) { try gpus.check(request.demand[Resources.gpu]) } catch { return .refuse(error) }
    guard free.covers(request.demand) else {
      return .refuse(
        MobulaError(.full, "The pod has \(free) free of \(total), not \(request.demand): return a lease first."))
    }
    do throws(MobulaError) { try gpus.take(request.demand[Resources.gpu], for: request.lease) } catch {
      return .refuse(error)
    }
    leases[request.lease] = LeaseRecord(lease: request.lease, job: request.job, demand: request.demand)
    // What GPUs a process uses is decided when it starts.
    let isFresh = request.isForActor == true || !gpus.devices(of: request.lease).isEmpty
    for (worker, entry) in workers.sorted(by: { $0.key < $1.key }) where !isFresh {
      if case .idle(let endpoint) = entry.state, entry.program == request.program, entry.job == request.job {
        workers[worker]?.state = .leased(request.lease, endpoint)
        return .use(worker, endpoint)
      }
    }
    workers[newWorker] = Entry(state: .starting(request.lease), program: request.program, job: request.job)
    return .start(newWorker)
  }

  /// A worker listens. False for one that is not expected (any more): it is to end.
  package mutating func ready(_ worker: WorkerID, at endpoint: Endpoint) -> Bool {
    guard let entry = workers[worker], case .starting(let lease) = entry.state else { return false }
    workers[worker]?.state = .leased(lease, endpoint)
    return true
  }

  /// Where a worker listens; `nil` before it does.
  package func endpoint(of worker: WorkerID) -> Endpoint? {
    switch workers[worker]?.state {
    case .leased(_, let endpoint), .idle(let endpoint): endpoint
    case .starting, nil: nil
    }
  }

  /// Who works for a lease; `nil` for nobody.
  package func worker(of lease: LeaseID) -> WorkerID? { workers.first { $0.value.lease == lease }?.key }

  /// A lease came back.
  package mutating func released(_ lease: LeaseID, workerIsReusable: Bool) -> ReleaseAction {
    leases[lease] = nil
    // A process that had some keeps memory of them for as long as it lives.
    let hadGPUs = !gpus.devices(of: lease).isEmpty
    gpus.giveBack(lease)
    guard let (worker, entry) = workers.first(where: { $0.value.lease == lease }) else { return .nothing }
    if case .leased(_, let endpoint) = entry.state, workerIsReusable, !hadGPUs {
      workers[worker]?.state = .idle(endpoint)
      return .keep(worker)
    }
    workers[worker] = nil
    return .stop(worker)
  }

  /// A worker ended, or could not be started. Returns the lease that ends with it.
  package mutating func workerGone(_ worker: WorkerID) -> LeaseID? {
    guard let entry = workers.removeValue(forKey: worker), let lease = entry.lease else { return nil }
    leases[lease] = nil
    gpus.giveBack(lease)
    return lease
  }

  /// A worker has been idle for long enough. True when it still is, and is to end.
  package mutating func idleTooLong(_ worker: WorkerID) -> Bool {
    guard let entry = workers[worker], entry.lease == nil else { return false }
    workers[worker] = nil
    return true
  }
}
