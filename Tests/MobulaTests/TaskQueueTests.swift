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
    var machine = warm(.microseconds(10))
    for _ in 2...4 { _ = machine.submit(Self.shape, Machine.Limits(losses: 1), at: after(1)) }
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
    let failed = take(&machine).compactMap { action in
      if case .fail(2, let error) = action { error } else { nil }
    }
    #expect(failed.count == 1 && failed[0].code == .workerLost && failed[0].mayHaveRun)
    #expect(failed[0].message == "The task was tried 2 times. killed")
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

  @Test func nobodyIsChargedForAWorkerThatCannotBeReached() {
    var machine = Machine()
    let task = machine.submit(Self.shape, Machine.Limits(losses: 0), at: begin)
    var now = begin
    let error = MobulaError(.connectionClosed, "nobody there")
    for round in 1...11 as ClosedRange<UInt64> {
      #expect(take(&machine).contains(.request(round, Self.shape)))
      machine.granted(round)
      machine.lost(round, error, at: now)
      now += .milliseconds(100)
      if round < 11 { machine.tick(at: now) }
    }
    // Something keeps it from all of them.
    let failed = failures(&machine)
    #expect(failed.count == 1 && failed[0].code == .workerLost && !failed[0].mayHaveRun)
    #expect(task == 1 && machine.count == 0)
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
    var machine = warm(.milliseconds(50))
    let limits = Machine.Limits(attempt: .seconds(1), end: after(3000), wait: .seconds(2))
    for _ in 2...3 { _ = machine.submit(Self.shape, limits, at: after(10)) }
    _ = take(&machine)
    machine.tick(at: after(1009))
    #expect(take(&machine) == [])
    machine.tick(at: after(1010))
    // One has run for too long: it fails, is told, and has its worker ended when that does not help.
    #expect(failures(&machine).map(\.code) == [.deadlineExceeded])
    machine.tick(at: after(2010))
    // The other has waited for too long.
    #expect(failures(&machine).map(\.code) == [.unschedulable])
    machine.tick(at: after(6009))
    #expect(take(&machine) == [])
    machine.tick(at: after(6010))
    #expect(take(&machine) == [.giveBack(1, workerIsReusable: false)])
    #expect(machine.count == 0)
    // What ends in time is not ended.
    machine = warm(.milliseconds(50))
    _ = machine.submit(Self.shape, limits, at: after(10))
    machine.tick(at: after(1010))
    #expect(take(&machine).contains(.cancel(1, [2])))
    machine.done(1, [(2, .seconds(1))], at: after(1020))
    machine.tick(at: after(1030))
    #expect(take(&machine) == [.giveBack(1, workerIsReusable: true)])
  }

  @Test func deadlinesHoldWhereverATaskIs() {
    var machine = warm(.microseconds(10))
    let limits = Machine.Limits(end: after(100))
    _ = machine.submit(Self.shape, limits, at: begin)
    _ = machine.submit(Self.shape, limits, at: begin)
    _ = machine.submit(Self.other, limits, at: begin)
    _ = machine.submit(Self.shape, limits, arguments: 1, at: begin)
    let long = machine.submit(Self.shape, at: begin)
    _ = take(&machine)
    machine.tick(at: after(100))
    #expect(failures(&machine).map(\.code) == Array(repeating: .deadlineExceeded, count: 4))
    #expect(machine.count == 1)
    machine.done(1, [(2, .zero), (3, .zero), (long, .zero)], at: after(101))
    #expect(machine.count == 0)
  }

  /// What fails, without the other actions.
  private func failures(_ machine: inout Machine) -> [MobulaError] {
    machine.takeActions().compactMap { if case .fail(_, let error) = $0 { error } else { nil } }
  }

  @Test func whatIsCancelledEnds() {
    var machine = warm(.microseconds(10))
    for _ in 2...3 { _ = machine.submit(Self.shape, at: after(1)) }
    _ = machine.submit(Self.other, at: after(1))
    _ = machine.submit(Self.shape, arguments: 2, at: after(1))
    _ = take(&machine)
    // Those that wait never begin, and nothing is asked for any more.
    machine.cancel(4, force: nil, at: after(2))
    machine.cancel(5, force: .seconds(1), at: after(2))
    #expect(
      take(&machine) == [.fail(4, Machine.cancelled), .withdraw(2), .fail(5, Machine.cancelled)])
    // Those that are at a worker are told once, and one that goes on has its worker ended: the other runs elsewhere.
    machine.cancel(2, force: nil, at: after(3))
    machine.cancel(2, force: .milliseconds(5), at: after(3))
    #expect(take(&machine) == [.cancel(1, [2])])
    machine.tick(at: after(8))
    #expect(
      take(&machine) == [
        .giveBack(1, workerIsReusable: false), .fail(2, Machine.cancelled), .request(3, Self.shape),
      ])
    // One whose worker is lost is not tried again.
    machine.granted(3)
    machine.opened(3, at: after(9))
    #expect(take(&machine) == [.push(3, [3])])
    machine.cancel(3, force: nil, at: after(9))
    machine.lost(3, MobulaError(.connectionClosed, "killed"), at: after(10))
    #expect(failures(&machine) == [Machine.cancelled])
    #expect(machine.count == 0)
  }

  @Test func errorsThatAreWorthItAreTriedAgain() {
    var machine = warm(.milliseconds(50))
    _ = machine.submit(Self.shape, Machine.Limits(errors: 1), at: begin)
    _ = take(&machine)
    let error = MobulaError(.workFailed, "busy")
    #expect(machine.mayRetry(2))
    machine.failed(1, 2, took: .milliseconds(1), error, at: after(1))
    #expect(take(&machine) == [.retry(2, error)])
    machine.tick(at: after(5))
    machine.tick(at: after(101))
    #expect(take(&machine) == [.push(1, [2])])
    #expect(!machine.mayRetry(2))
  }

  @Test func argumentsComeFirst() {
    var machine = warm(.microseconds(10))
    let task = machine.submit(Self.shape, arguments: 2, at: after(1))
    machine.argumentCame(task, at: after(2))
    #expect(take(&machine) == [])
    machine.argumentCame(task, at: after(3))
    #expect(take(&machine) == [.push(1, [task])])
    let other = machine.submit(Self.shape, arguments: 1, at: after(3))
    machine.discard(other)
    machine.argumentCame(other, at: after(4))
    #expect(take(&machine) == [] && machine.count == 1)
  }

  @Test func whatWaitsLendsItsLease() {
    var machine = Machine(Machine.Settings(askDelay: .milliseconds(1)))
    for _ in 1...3 { _ = machine.submit(Self.shape, at: begin) }
    _ = machine.submit(Self.other, at: begin)
    // Nothing is asked for at once: what waits in the next moment runs here.
    #expect(take(&machine) == [])
    let lent = machine.lend(["CPU": 1], at: begin)
    // The newest that fits.
    #expect(take(&machine) == [.runHere(lent, 3)])
    machine.done(lent, [(3, .milliseconds(3))], at: begin)
    #expect(take(&machine) == [.runHere(lent, 2)])
    // The others need what is not here.
    machine.tick(at: after(1))
    #expect(take(&machine).contains { if case .request(_, Self.other) = $0 { true } else { false } })
    // It goes on: what runs there ends, and nothing more begins.
    machine.takeBack(lent)
    machine.done(lent, [(2, .milliseconds(3))], at: after(2))
    #expect(!take(&machine).contains { if case .runHere = $0 { true } else { false } })
    #expect(machine.count == 2)
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
    for task in 1...6 { line.append(UInt64(task)) }
    line.prepend([7, 8])
    for task in [8, 1, 3, 6] as [UInt64] { line.remove(task) }
    #expect(line.count == 4 && line.first == 7 && line.last == 5)
    #expect(line.popLast() == 5 && line.popFirst() == 7 && line.popFirst(9) == [2, 4])
    #expect(line.isEmpty && line.popLast() == nil)
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
    private var machine = Machine()
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
    private var blocked: [UInt64: Int] = [:]
    private var lent: UInt64?
    /// What runs on leases that are lent here, and until when.
    private var here: [UInt64: (task: UInt64, ends: ContinuousClock.Instant)] = [:]

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
            var limits = Machine.Limits()
            if draw(0..<6) == 0 { limits.attempt = .milliseconds(draw(1..<40)) }
            if draw(0..<6) == 0 { limits.end = now + .milliseconds(draw(1..<400)) }
            if draw(0..<6) == 0 { limits.wait = .milliseconds(draw(1..<400)) }
            let arguments = draw(0..<4) == 0 ? draw(1..<3) : 0
            let task = machine.submit(
              draw(0..<4) == 0 ? TaskQueueTests.other : TaskQueueTests.shape, limits, arguments: arguments, at: now)
            if arguments > 0 { blocked[task] = arguments }
            submitted += 1
          }
          obey()
        }
        now += .microseconds(draw(10..<3000))
        for (task, count) in blocked.sorted(by: { $0.key < $1.key }) where draw(0..<5) == 0 {
          blocked[task] = count > 1 ? count - 1 : nil
          machine.argumentCame(task, at: now)
          obey()
        }
        if draw(0..<20) == 0, submitted > 0 {
          machine.cancel(
            UInt64(draw(1..<submitted + 1)), force: draw(0..<2) == 0 ? .milliseconds(draw(0..<20)) : nil, at: now)
          obey()
        }
        if draw(0..<30) == 0 {
          if let lent, draw(0..<2) == 0 {
            machine.takeBack(lent)
            self.lent = nil
          } else if lent == nil {
            lent = machine.lend(["CPU": 1], at: now)
          }
          obey()
        }
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
      for _ in 0..<100 where free < 2 || !here.isEmpty {
        now += .milliseconds(10)
        machine.tick(at: now)
        obey()
        step(false)
      }
      #expect(free == 2 && workers.isEmpty && asked.isEmpty && here.isEmpty, "seed \(seed)")
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
      for (slot, work) in here.sorted(by: { $0.key < $1.key }) where work.ends <= now {
        here[slot] = nil
        running.remove(work.task)
        end(work.task, itself: true)
        machine.done(slot, [(work.task, .microseconds(50))], at: now)
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
          end(task, itself: true)
          machine.done(slot, [(task, .microseconds(50))], at: now)
          obey()
        }
      }
    }

    /// - Parameter itself: whether it has run to its end, of which nobody may want to know any more.
    private mutating func end(_ task: UInt64, itself: Bool = false) {
      if itself, ended[task] != nil { return }
      ended[task, default: 0] += 1
      #expect(ended[task] == 1, "seed \(seed): task \(task) ended twice")
    }

    private mutating func obey() {
      var recalls: [(UInt64, [UInt64])] = []
      var cancelled: [(UInt64, [UInt64])] = []
      for action in machine.takeActions() {
        switch action {
        case .request(let slot, _): asked.append(slot)
        case .withdraw(let slot):
          asked.removeAll { $0 == slot }
        case .push(let slot, let tasks):
          #expect(workers[slot] != nil, "seed \(seed): tasks are pushed to a lease that is not there")
          workers[slot]?.tasks += tasks
        case .recall(let slot, let tasks): recalls.append((slot, tasks))
        case .cancel(let slot, let tasks):
          // One that runs may not listen; one that does not never begins.
          guard let worker = workers[slot] else { continue }
          let removed = worker.tasks.filter { tasks.contains($0) && !($0 == worker.tasks.first && worker.ends != nil) }
          workers[slot]!.tasks.removeAll { removed.contains($0) }
          for task in removed { end(task, itself: true) }
          cancelled.append((slot, removed))
        case .runHere(let slot, let task):
          #expect(here[slot] == nil, "seed \(seed): two tasks run on one lease")
          #expect(running.insert(task).inserted, "seed \(seed): task \(task) runs twice at a time")
          here[slot] = (task, now + .microseconds(draw(1..<3000)))
        case .giveBack(let slot, let isReusable):
          if let worker = workers.removeValue(forKey: slot) {
            #expect(worker.tasks.isEmpty || !isReusable, "seed \(seed): a lease goes with tasks")
            if worker.ends != nil, let task = worker.tasks.first { running.remove(task) }
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
      for (slot, tasks) in cancelled { machine.done(slot, tasks.map { ($0, nil) }, at: now) }
      if !recalls.isEmpty || !cancelled.isEmpty { obey() }
    }
  }
}
