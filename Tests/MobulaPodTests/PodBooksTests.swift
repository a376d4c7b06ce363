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
