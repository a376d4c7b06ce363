internal import CMobula
import Distributed
import FoundationEssentials
import Glibc
import Logging
import MobulaCore
import MobulaWire
import Synchronization

/// The driver's executable in worker mode: runs tasks and actors for whoever leases it.
///
/// It lives as long as its connection to the pod.
public enum Worker {
  /// Whether this process was started as a worker.
  public static var isRequested: Bool { currentEnvironment()[WorkerEnvironment.variable] != nil }

  private static let given = Mutex<[Int]>([])

  /// Which of its pod's GPUs are this worker's, from 0; none in a driver. `CUDA_VISIBLE_DEVICES` has them already.
  public static var gpus: [Int] { given.withLock { $0 } }

  /// Serves until the pod lets go. Never returns.
  public static func main() async -> Never {
    do {
      try await serve()
      exit(0)
    } catch {
      FileHandleOutput.write("worker: \(error)\n")
      let code = (error as? MobulaError)?.code
      exit(
        code == .unavailable || code == .connectionClosed || code == .deadlineExceeded
          ? WorkerEnvironment.notNowStatus : 1)
    }
  }

  private static func serve() async throws {
    // A program that a task starts is a driver of its own, not this worker once more.
    guard let text = SharedEnvironment.take(WorkerEnvironment.variable) else {
      throw MobulaError(.invalidArgument, "\(WorkerEnvironment.variable) is not set: workers are started by pods.")
    }
    // The pod holds the other end of standard input: however it ends, this process ends with it,
    // even while the user's work keeps every thread of the pool busy.
    detachThread(named: "lifeline") {
      var byte: UInt8 = 0
      while true {
        let count = read(0, &byte, 1)
        if count == 0 || count < 0 && currentErrno() != EINTR { _exit(0) }
      }
    }
    let environment = try JSONDecoder().decode(WorkerEnvironment.self, from: Data(text.utf8))
    given.withLock { $0 = environment.gpus ?? [] }
    // A line that was printed is in the log, whatever ends this process then.
    mobula_write_out_lines()
    let options = ClusterOptions(directory: environment.directory)
    let token = try jobToken(environment)
    let tls = try HostPaths.tls(in: environment.directory)
    var hello = Hello(role: .worker, name: environment.podName)
    hello.build = environment.program.build

    let store = try await StoreSession.connect(directory: environment.directory, token: token, hello: hello)
    hello.host = store.welcome.host
    hello.cluster = store.welcome.cluster
    let workers = WorkerConnections(tls: tls, hello: hello)
    let log = Logger(label: "mobula.worker")
    let way = HeadSession.Way(endpoint: store.welcome.head, token: token, tls: tls, hello: hello, log: log)
    let head = try await HeadSession.join(environment.job, way, workers)
    workers.use(token, renewing: { try await head.jobToken($0 ?? environment.job, token) })
    let cluster = Cluster(
      options: options, store: store, head: head, token: token, hello: hello, job: environment.job,
      program: environment.program, workers: workers, log: log)
    let context = TaskContext(
      cluster: cluster, host: store.welcome.host, hostName: store.welcome.name, pod: environment.pod,
      podName: environment.podName)

    var answers = RPCRouter()
    answers.on(PodAPI.mayEnd) { [weak cluster] _, _ in
      guard let cluster else { return true }
      return cluster.calls.isIdle && cluster.tasks?.isIdle != false
    }
    let known = Mutex<RPCConnection?>(nil)
    let service = WorkerService(context: context, worker: environment.worker) { lease, isLent in
      // Without the pod this process ends.
      (try? await known.withLock { $0 }?.call(PodAPI.leaseLent, LeaseLent(lease: lease, isLent: isLent))) ?? false
    }
    service.answerPod(&answers)
    let pod = try await RPCConnection.connect(
      to: .unix(path: environment.podSocket), token: token, hello: hello, router: answers)
    known.withLock { $0 = pod }
    let server = try await RPCServer.bind(
      to: .tcp(host: environment.listen ?? environment.address, port: 0), token: token, hello: hello,
      router: service.router(), tls: tls, onDisconnect: { service.disconnected($0) })
    let endpoint =
      if case .tcp(_, let port) = server.endpoint { Endpoint.tcp(host: environment.address, port: port) } else {
        server.endpoint
      }
    cluster.actors.listens(at: endpoint)
    _ = try await pod.call(PodAPI.workerReady, WorkerReady(worker: environment.worker, endpoint: endpoint))
    // Without its pod nobody watches it, without its host it has no store: either ends it.
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await pod.waitUntilClosed() }
      group.addTask { await store.waitUntilClosed() }
      await group.next()
      // The process ends here; what the other task waits for ends with it.
      exit(0)
    }
  }
}

extension Worker {
  /// What the pod has given it; of a pod that knows no tokens of jobs, that which the cluster's token makes.
  private static func jobToken(_ environment: WorkerEnvironment) throws(MobulaError) -> ClusterToken {
    let file = HostPaths.token(in: environment.directory)
    if let text = environment.token { return try ClusterToken(text).withElder(file) }
    return try ClusterToken.read(file: file).ofJob(environment.job)
  }
}

enum FileHandleOutput {
  /// Writes to standard error, whole.
  static func write(_ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
      if count <= 0 { return }
      rest = rest.dropFirst(count)
    }
  }
}
