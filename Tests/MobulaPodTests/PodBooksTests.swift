import MobulaCore
import MobulaWire
import Testing

@testable import MobulaPod

@Suite struct PodBooksTests {
  private let program = WorkerProgram(executable: "/bin/app", build: "b")

  private func request(_ number: UInt64, _ demand: Resources = ["CPU": 1], job: UInt32 = 1) -> LeaseRequest {
    LeaseRequest(
      lease: LeaseID(high: 0, low: number), job: JobID(job), demand: demand, strategy: .pack, program: program)
  }

  private func worker(_ number: UInt64) -> WorkerID { WorkerID(high: 0, low: number) }
  private let endpoint = Endpoint.tcp(host: "127.0.0.1", port: 1)

  @Test func theBooksDecide() throws {
    var books = PodBooksStateMachine(total: ["CPU": 2])
    #expect(books.offered(request(1), newWorker: worker(1)) == .start(worker(1)))
    #expect(books.offered(request(2), newWorker: worker(2)) == .start(worker(2)))
    guard case .refuse(let error) = books.offered(request(3), newWorker: worker(3)) else {
      Issue.record("a third CPU of two was granted")
      return
    }
    #expect(error.code == .full)
    #expect(books.ready(worker(1), at: endpoint) == true)
    #expect(books.released(LeaseID(high: 0, low: 1), workerIsReusable: true) == .keep(worker(1)))
    #expect(books.offered(request(3), newWorker: worker(3)) == .use(worker(1), endpoint))
    #expect(books.free["CPU"] == .zero)
  }

  @Test func aLentLeaseTakesNoCPU() {
    var books = PodBooksStateMachine(total: ["CPU": 1, "gpu": 4])
    #expect(books.offered(request(1, ["CPU": 1, "gpu": 1]), newWorker: worker(1)) == .start(worker(1)))
    let first = LeaseID(high: 0, low: 1)
    #expect(books.lent(first, true) == true)
    #expect(books.lent(first, true) == false, "once")
    #expect(books.free == ["CPU": 1, "gpu": 3])
    #expect(books.leases[first]?.isLent == true, "a head that registers it anew hears of it")
    #expect(books.offered(request(2), newWorker: worker(2)) == .start(worker(2)))
    // It goes on without waiting for anybody: what is free is below nothing, and nobody gets any.
    #expect(books.lent(first, false) == true)
    #expect(books.free["CPU"] == -1)
    guard case .refuse = books.offered(request(3), newWorker: worker(3)) else {
      Issue.record("a CPU that nobody has was granted")
      return
    }
    // What takes none still finds room.
    #expect(books.offered(request(4, ["gpu": 1]), newWorker: worker(4)) == .start(worker(4)))
    #expect(books.released(LeaseID(high: 0, low: 2), workerIsReusable: false) == .stop(worker(2)))
    #expect(books.free["CPU"] == 0)
    #expect(books.lent(LeaseID(high: 0, low: 2), true) == false, "one that is over lends nothing")
  }

  @Test func gpusAreGivenByTheirIndex() {
    var books = PodBooksStateMachine(total: ["CPU": 8, "GPU": 3])
    func lease(_ number: UInt64) -> LeaseID { LeaseID(high: 0, low: number) }
    func refused(_ number: UInt64, _ gpus: ResourceAmount) -> MobulaError.Code? {
      if case .refuse(let error) = books.offered(request(number, ["GPU": gpus]), newWorker: worker(number)) {
        error.code
      } else {
        nil
      }
    }
    #expect(refused(1, 1) == nil && books.gpus(of: lease(1)) == [0])
    // Parts of one come of one, while there is room.
    #expect(refused(2, 0.5) == nil && books.gpus(of: lease(2)) == [1])
    #expect(refused(3, 0.25) == nil && books.gpus(of: lease(3)) == [1])
    #expect(refused(4, 1.5) == .invalidArgument)
    // 1.25 are free, and no two whole ones.
    #expect(refused(5, 2) == .full && books.leases[lease(5)] == nil)
    #expect(refused(6, 1) == nil && books.gpus(of: lease(6)) == [2])
    #expect(refused(7, 0.5) == .full)
    _ = books.ready(worker(1), at: endpoint)
    #expect(books.released(lease(1), workerIsReusable: true) == .stop(worker(1)), "it keeps memory of its GPU")
    #expect(books.workerGone(worker(6)) == lease(6))
    #expect(refused(8, 2) == nil && books.gpus(of: lease(8)) == [0, 2])
    // Work without one sees none.
    #expect(books.offered(request(9), newWorker: worker(9)) == .start(worker(9)) && books.gpus(of: lease(9)) == [])
    #expect(PodBooksStateMachine(total: ["CPU": 1]).gpus(of: lease(1)) == nil)
    #expect(WorkerLauncher.visible([0, 2], of: nil) == "0,2" && WorkerLauncher.visible([], of: "3,4").isEmpty)
    #expect(WorkerLauncher.visible([1], of: "GPU-a, GPU-b") == "GPU-b")
  }

  @Test func notAllLendAtATime() {
    var books = PodBooksStateMachine(total: ["CPU": 1])
    for number in 1...4 as ClosedRange<UInt64> {
      #expect(books.offered(request(number), newWorker: worker(number)) == .start(worker(number)))
      #expect(books.lent(LeaseID(high: 0, low: number), true) == (number < 4))
    }
    #expect(books.free["CPU"] == 0)
  }

  @Test func anActorGetsAWorkerOfItsOwn() {
    var books = PodBooksStateMachine(total: ["CPU": 2])
    #expect(books.offered(request(1), newWorker: worker(1)) == .start(worker(1)))
    #expect(books.ready(worker(1), at: endpoint) == true)
    #expect(books.released(LeaseID(high: 0, low: 1), workerIsReusable: true) == .keep(worker(1)))
    // What the idle one has submitted may go on, and would end with the actor.
    var actor = request(2)
    actor.isForActor = true
    #expect(books.offered(actor, newWorker: worker(2)) == .start(worker(2)))
    #expect(books.offered(request(3), newWorker: worker(3)) == .use(worker(1), endpoint))
  }

  @Test func anotherJobGetsAnotherWorker() {
    var books = PodBooksStateMachine(total: ["CPU": 2])
    #expect(books.offered(request(1), newWorker: worker(1)) == .start(worker(1)))
    #expect(books.ready(worker(1), at: endpoint) == true)
    #expect(books.released(LeaseID(high: 0, low: 1), workerIsReusable: true) == .keep(worker(1)))
    #expect(books.offered(request(2, job: 2), newWorker: worker(2)) == .start(worker(2)))
    #expect(books.idleTooLong(worker(1)) == true)
    #expect(books.idleTooLong(worker(1)) == false, "it ends once")
    #expect(books.idleTooLong(worker(2)) == false, "a leased worker stays")
  }

  @Test func aLeaseEndsWithItsWorker() {
    var books = PodBooksStateMachine(total: ["CPU": 1])
    #expect(books.offered(request(1), newWorker: worker(1)) == .start(worker(1)))
    #expect(books.workerGone(worker(1)) == LeaseID(high: 0, low: 1))
    #expect(books.workerGone(worker(1)) == nil)
    #expect(books.ready(worker(1), at: endpoint) == false, "a worker that comes too late is not expected")
    #expect(books.free["CPU"] == 1)
    #expect(books.offered(request(2), newWorker: worker(2)) == .start(worker(2)))
    #expect(books.ready(worker(2), at: endpoint) == true)
    #expect(books.released(LeaseID(high: 0, low: 2), workerIsReusable: false) == .stop(worker(2)))
    #expect(books.free["CPU"] == 1)
  }
}
