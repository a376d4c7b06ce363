import MobulaCore
import Testing

@testable import Mobula

/// Which tasks run on which leases.
@Suite struct TaskQueueTests {
  private typealias Machine = TaskQueueStateMachine
  private static let shape = Machine.Shape(demand: ["CPU": 1], strategy: .pack)
  private static let other = Machine.Shape(demand: ["GPU": 1], strategy: .pack)
  private let begin = ContinuousClock.now

  private func after(_ milliseconds: Int) -> ContinuousClock.Instant { begin + .milliseconds(milliseconds) }

  /// What is to be done, without when to look again.
  private func take(_ machine: inout Machine) -> [Machine.Action] {
    machine.takeActions().filter { if case .wakeAt = $0 { false } else { true } }
  }

  /// A machine with a lease that takes tasks, of which one has run for so long.
  private func warm(_ took: Duration, _ settings: Machine.Settings = .init()) -> Machine {
    var machine = Machine(settings)
    #expect(machine.submit(Self.shape, at: begin) == 1)
    #expect(take(&machine) == [.request(1, Self.shape)])
    machine.granted(1)
    machine.opened(1, at: begin)
    #expect(take(&machine) == [.push(1, [1])])
    machine.done(1, [(1, took)], at: begin)
    #expect(take(&machine) == [])
    return machine
  }

  @Test func shortTasksArePushedAheadInTheirOrder() {
    var machine = warm(.microseconds(100))
    for task in 2...30 { #expect(machine.submit(Self.shape, at: after(1)) == UInt64(task)) }
    // A millisecond's work, and one more; each as soon as there is room.
    #expect(take(&machine) == (2...12).map { .push(1, [$0]) } + [.request(2, Self.shape)])
    machine.done(1, [(2, .microseconds(100)), (3, .microseconds(100))], at: after(2))
    #expect(take(&machine) == [.push(1, [13, 14])])
    // Those that wait go to a second lease together.
    machine.granted(2)
    machine.opened(2, at: after(3))
    #expect(take(&machine).first == .push(2, Array(15...25)))
  }

  @Test func longTasksGoOneByOne() {
    var machine = warm(.milliseconds(20))
    for _ in 2...5 { _ = machine.submit(Self.shape, at: after(1)) }
    #expect(take(&machine) == [.push(1, [2])] + (2...4).map { .request($0, Self.shape) })
    // Each that is granted doubles how many are asked for at a time.
    machine.granted(2)
    machine.opened(2, at: after(2))
    #expect(take(&machine) == [.push(2, [3])])
    machine.done(1, [(2, .milliseconds(20))], at: after(3))
    machine.done(2, [(3, .milliseconds(20))], at: after(3))
    // What nobody waits for any more is not waited for.
    #expect(take(&machine) == [.push(1, [4]), .push(2, [5]), .withdraw(3), .withdraw(4)])
  }

  @Test func whatWaitsBehindALongTaskIsCalledBack() {
    var machine = warm(.microseconds(10))
    for _ in 2...4 { _ = machine.submit(Self.shape, at: after(1)) }
    _ = take(&machine)
    machine.tick(at: after(10))
    #expect(take(&machine) == [])
    machine.tick(at: after(11))
    #expect(take(&machine) == [.recall(1, [3, 4])])
    machine.tick(at: after(30))
    #expect(take(&machine) == [])
    // One of them had begun meanwhile. What was called back does not wait behind the long one again.
    machine.recalled(1, [4], at: after(31))
    #expect(take(&machine) == [.request(2, Self.shape)])
    machine.tick(at: after(60))
    #expect(take(&machine) == [])
    machine.granted(2)
    machine.opened(2, at: after(61))
    #expect(take(&machine) == [.push(2, [4])])
  }

  @Test func onlyTheFrontIsChargedForALostWorker() {
    var machine = warm(.microseconds(10), Machine.Settings(retries: 1))
    for _ in 2...4 { _ = machine.submit(Self.shape, at: after(1)) }
    _ = take(&machine)
    let lost = MobulaError(.connectionClosed, "killed")
    machine.lost(1, lost, at: after(2))
    #expect(
      take(&machine) == [.giveBack(1, workerIsReusable: false), .retry(2, lost), .request(2, Self.shape)])
    machine.granted(2)
    machine.opened(2, at: after(3))
    #expect(take(&machine) == [.push(2, [3, 4])])
    machine.done(2, [(3, .zero), (4, .zero)], at: after(4))
    // After its pause, once more and not again.
    machine.tick(at: after(102))
    #expect(take(&machine) == [.push(2, [2])])
    machine.lost(2, lost, at: after(103))
    #expect(take(&machine).contains(.fail(2, lost)))
    #expect(machine.count == 0)
  }

  @Test func whatNoOtherWorkerDoesBetterFails() {
    var machine = Machine()
    _ = machine.submit(Self.shape, at: begin)
    _ = machine.submit(Self.shape, at: begin)
    _ = take(&machine)
    machine.granted(1)
    let error = MobulaError(.mismatch, "another build")
    machine.lost(1, error, at: after(1))
    #expect(take(&machine) == [.giveBack(1, workerIsReusable: false), .fail(1, error)])
    machine.refused(2, error, at: after(2))
    #expect(take(&machine) == [.fail(2, error)])
  }

  @Test func leasesAreKeptForAMomentAndGivenBack() {
    var machine = warm(.microseconds(10))
    machine.tick(at: after(5))
    #expect(take(&machine) == [])
    machine.tick(at: after(10))
    #expect(take(&machine) == [.giveBack(1, workerIsReusable: true)])
    // One that has worked for long goes, and another is asked for.
    machine = warm(.microseconds(10))
    _ = machine.submit(Self.shape, at: after(99))
    _ = machine.submit(Self.shape, at: after(99))
    _ = take(&machine)
    machine.done(1, [(2, .zero)], at: after(100))
    _ = machine.submit(Self.shape, at: after(100))
    #expect(take(&machine) == [.request(2, Self.shape)])
    machine.done(1, [(3, .zero)], at: after(101))
    #expect(take(&machine) == [.giveBack(1, workerIsReusable: true)])
  }

  @Test func anotherShapeNeedsWhatIsKept() {
    var machine = warm(.microseconds(10))
    _ = machine.submit(Self.other, at: after(1))
    #expect(take(&machine) == [.request(2, Self.other), .giveBack(1, workerIsReusable: true)])
  }

  @Test func tasksHaveLimits() {
    var machine = warm(.milliseconds(50), Machine.Settings(workLimit: .seconds(1)))
    for _ in 2...3 { _ = machine.submit(Self.shape, at: after(10)) }
    _ = take(&machine)
    machine.tick(at: after(1010))
    let actions = take(&machine)
    #expect(actions.contains(.giveBack(1, workerIsReusable: false)))
    let codes = actions.compactMap { action -> MobulaError.Code? in
      if case .fail(_, let error) = action { error.code } else { nil }
    }
    // One ran for too long, the other waited for too long.
    #expect(codes.contains(.deadlineExceeded) && codes.contains(.unavailable) && codes.count == 2)
  }

  @Test func aCloseEndsAll() {
    var machine = warm(.milliseconds(50))
    for _ in 2...3 { _ = machine.submit(Self.shape, at: after(1)) }
    _ = take(&machine)
    let error = MobulaError(.unavailable, "closed")
    machine.close(error)
    #expect(
      take(&machine) == [
        .fail(2, error), .fail(3, error), .giveBack(1, workerIsReusable: false), .withdraw(2),
      ])
    #expect(machine.count == 0)
  }

  @Test func linesKeepTheirOrder() {
    var line = TaskLine()
    for task in 1...3000 { line.append(UInt64(task)) }
    #expect(line.popFirst(1500) == Array(1...1500))
    line.prepend([1499, 1500])
    #expect(line.count == 1502 && line.first == 1499)
    #expect(line.popFirst(5) == [1499, 1500, 1501, 1502, 1503])
    #expect(line.popFirst(5000) == Array(1504...3000))
    #expect(line.isEmpty && line.first == nil && line.popFirst() == nil)
  }

  /// Leases that are granted late, workers that are lost, tasks that take long: each task ends once, in time, and runs on
  /// one worker at a time.
  @Test(arguments: 0..<200) func everyTaskEnds(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    var simulation = Simulation(seed: seed, generator: generator.next())
    simulation.run()
  }

  /// A head with a few CPUs, and workers that are now and then lost.
  private struct Simulation {
    private let seed: Int
    private var generator: SeededGenerator
    private var machine = Machine(Machine.Settings(retries: 3))
    private var now = ContinuousClock.now
    private var free = 2
    /// Asked for, in order.
    private var asked: [UInt64] = []
    private var granted: Set<UInt64> = []
    /// What is at each worker, and since when the first of it runs, and how long that takes.
    private var workers: [UInt64: (tasks: [UInt64], ends: ContinuousClock.Instant?)] = [:]
    private var running: Set<UInt64> = []
    private var ended: [UInt64: Int] = [:]
    private var wakeAt: ContinuousClock.Instant?

    init(seed: Int, generator: UInt64) {
      self.seed = seed
      self.generator = SeededGenerator(seed: generator)
    }

    private mutating func draw(_ range: Range<Int>) -> Int { Int.random(in: range, using: &generator) }

    mutating func run() {
      let count = 60
      var submitted = 0
      let lossy = draw(0..<3) == 0
      let end = now + .seconds(600)
      while submitted < count || ended.count < count {
        if submitted < count, draw(0..<2) == 0 {
          for _ in 0..<draw(1..<10) where submitted < count {
            _ = machine.submit(draw(0..<4) == 0 ? TaskQueueTests.other : TaskQueueTests.shape, at: now)
            submitted += 1
          }
          obey()
        }
        now += .microseconds(draw(10..<3000))
        if let due = wakeAt, due <= now {
          wakeAt = nil
          machine.tick(at: now)
          obey()
        }
        step(lossy)
        if now >= end { return #expect(Bool(false), "seed \(seed): only \(ended.count) of \(count) tasks ended") }
      }
      #expect(machine.count == 0)
      // All leases are given back in the end.
      for _ in 0..<100 where free < 2 {
        now += .milliseconds(10)
        machine.tick(at: now)
        obey()
        step(false)
      }
      #expect(free == 2 && workers.isEmpty && asked.isEmpty, "seed \(seed)")
    }

    private mutating func step(_ lossy: Bool) {
      if free > 0, let slot = asked.first, draw(0..<3) == 0 {
        asked.removeFirst()
        free -= 1
        granted.insert(slot)
        machine.granted(slot)
        obey()
      }
      for slot in granted.sorted() where draw(0..<2) == 0 {
        granted.remove(slot)
        workers[slot] = ([], nil)
        machine.opened(slot, at: now)
        obey()
      }
      for slot in workers.keys.sorted() {
        guard let worker = workers[slot], let task = worker.tasks.first else { continue }
        guard let ends = worker.ends else {
          workers[slot]!.ends = now + .microseconds(draw(0..<8) == 0 ? draw(1000..<60_000) : draw(1..<300))
          #expect(running.insert(task).inserted, "seed \(seed): task \(task) runs twice at a time")
          continue
        }
        if lossy, draw(0..<60) == 0 {
          workers[slot] = nil
          running.remove(task)
          free += 1
          machine.lost(slot, MobulaError(.connectionClosed, "lost"), at: now)
          obey()
        } else if ends <= now {
          workers[slot]!.tasks.removeFirst()
          workers[slot]!.ends = nil
          running.remove(task)
          end(task)
          machine.done(slot, [(task, .microseconds(50))], at: now)
          obey()
        }
      }
    }

    private mutating func end(_ task: UInt64) {
      ended[task, default: 0] += 1
      #expect(ended[task] == 1, "seed \(seed): task \(task) ended twice")
    }

    private mutating func obey() {
      var recalls: [(UInt64, [UInt64])] = []
      for action in machine.takeActions() {
        switch action {
        case .request(let slot, _): asked.append(slot)
        case .withdraw(let slot):
          asked.removeAll { $0 == slot }
        case .push(let slot, let tasks):
          #expect(workers[slot] != nil, "seed \(seed): tasks are pushed to a lease that is not there")
          workers[slot]?.tasks += tasks
        case .recall(let slot, let tasks): recalls.append((slot, tasks))
        case .giveBack(let slot, let isReusable):
          if let worker = workers.removeValue(forKey: slot) {
            #expect(worker.tasks.isEmpty || !isReusable, "seed \(seed): a lease goes with tasks")
            free += 1
          } else if granted.remove(slot) != nil {
            free += 1
          }
        case .fail(let task, _): end(task)
        case .retry: break
        case .wakeAt(let instant): wakeAt = min(wakeAt ?? instant, instant)
        }
      }
      for (slot, tasks) in recalls {
        guard let worker = workers[slot] else { continue }
        // All but the one that runs, of which it may be that it has just begun.
        let back = worker.tasks.dropFirst().filter { tasks.contains($0) }
        workers[slot]!.tasks.removeAll { back.contains($0) }
        machine.recalled(slot, Array(back), at: now)
      }
      if !recalls.isEmpty { obey() }
    }
  }
}
