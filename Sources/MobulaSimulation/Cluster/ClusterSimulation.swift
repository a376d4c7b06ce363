import MobulaControl
import MobulaCore

/// A whole control plane in virtual time: a head with its journal, hosts, pods, workers and drivers, over a network that
/// delays, breaks and repeats, with processes and machines that end and come back.
///
/// What decides is the runtime's own: `ClusterState`, `HoldLedgerStateMachine`, `PodBooksStateMachine`. The shells around
/// them (`Head`, `HostRegistrar`, `HostReports`, `Pod`, `HeadSession`) are done here again, without I/O. Beside them the
/// simulation keeps what is so: which process holds which object, what was answered to whom. At every step it compares.
///
/// One seed makes one run, always the same. No process has a wall clock.
package final class ClusterSimulation {
  package let options: ClusterSimulationOptions
  var now = Duration.zero
  private var queue = EventQueue<() -> Void>()
  var random: SeededGenerator

  /// The disk of the head's machine.
  let disk: SimulatedJournal
  var head: SimulatedHead?
  var machines: [SimulatedMachine] = []
  var drivers: [SimulatedDriver] = []
  var links: [SimulatedLink] = []
  /// Whether nothing breaks any more.
  var isHealing = false
  /// Whether drivers begin nothing any more.
  var isQuiet = false

  // What is so.
  var truth = ClusterTruth()
  package private(set) var violations: [String] = []
  /// What happened, if it is kept.
  package private(set) var transcript: [String] = []
  /// Of all that happened, whether it is kept or not: two runs of a seed have the same.
  package private(set) var fingerprint: UInt64 = 0xCBF2_9CE4_8422_2325
  package private(set) var steps = 0

  private var lastNumber: UInt64 = 0

  package init(_ options: ClusterSimulationOptions) {
    self.options = options
    random = SeededGenerator(seed: options.seed)
    disk = SimulatedJournal(cluster: ClusterID(high: 0, low: 1))
  }

  /// Runs to the end, or to the first violation.
  package func run() {
    for index in 0..<options.hosts { machines.append(SimulatedMachine(index, in: self)) }
    startHead()
    for machine in machines { machine.boot() }
    for index in 0..<options.drivers {
      after(.milliseconds(Int.random(in: 0...1500, using: &random))) {
        self.startDriver(on: self.machines[index % self.machines.count])
      }
    }
    scheduleFaults()
    run(until: options.time)
    isHealing = true
    heal()
    run(until: options.time + options.settlingTime / 2)
    isQuiet = true
    run(until: options.time + options.settlingTime)
    if violations.isEmpty { checkConvergence() }
    // They know each other.
    queue = EventQueue()
    for link in links { link.end() }
    machines = []
    drivers = []
    head = nil
  }

  private func run(until end: Duration) {
    while violations.isEmpty, let next = queue.nextInstant, next.sinceStart <= end, let event = queue.popFirst() {
      now = max(now, event.instant.sinceStart)
      steps += 1
      event.event()
    }
    now = max(now, end)
  }

  // MARK: Time and chance

  func after(_ delay: Duration, _ body: @escaping () -> Void) {
    queue.add(body, at: SimulatedClock.Instant(sinceStart: now + delay))
  }

  func milliseconds(_ range: ClosedRange<Int>) -> Duration {
    .microseconds(Int.random(in: range.lowerBound * 1000...range.upperBound * 1000, using: &random))
  }

  func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

  func number() -> UInt64 {
    lastNumber += 1
    return lastNumber
  }

  // MARK: Saying what happens

  func note(_ line: @autoclosure () -> String) {
    let text = line()
    for byte in text.utf8 { fingerprint = (fingerprint ^ UInt64(byte)) &* 0x100_0000_01B3 }
    fingerprint = (fingerprint ^ UInt64(now / .nanoseconds(1))) &* 0x100_0000_01B3
    if options.keepsTranscript { transcript.append("\(Double(now / .microseconds(1)) / 1000) ms  \(text)") }
  }

  /// As `note`, of what would take long to say each time: only where it is kept.
  func detail(_ line: @autoclosure () -> String) {
    if options.keepsTranscript { transcript.append("\(Double(now / .microseconds(1)) / 1000) ms    \(line())") }
  }

  /// Something that must never be.
  func violation(_ text: String) {
    note("VIOLATION: \(text)")
    violations.append("seed \(options.seed), at \(now): \(text)")
  }
}

package struct ClusterSimulationOptions: Sendable {
  /// What goes wrong in the world around the processes.
  package enum Fault: CaseIterable, Sendable {
    case headCrash, journalFails, journalLost, linkCut, partition, hostCrash, machineCrash, podCrash, workerCrash,
      driverCrash, clone, forget, headHangs
  }

  /// Faults put into the processes on purpose, to see whether they are found.
  package enum Mutation: CaseIterable, Sendable {
    /// The head answers before the journal has the records.
    case answersBeforeCommit
    /// The journal says that it has records before it has.
    case journalLies
    /// A pod confirms that it has ended leases, and goes on with them.
    case podSkipsEnding
    /// A host that registers does not say what its processes hold.
    case hostForgetsHolds
    /// A process lets go of an object before who got a reference has been heard.
    case senderLetsGoEarly
    /// A host tells the head of changes in any order.
    case reportsOvertakeEachOther
    /// The head gives up hosts at once that are away.
    case absentIsGone
    /// A host's process says that it is the one before it.
    case nonceIsReused
    /// A restarted head does not wait for those who were there.
    case headDoesNotSettle
    /// A host goes on with what it has after the cluster has given it up.
    case retiredHostGoesOn
    /// The head starts actors again at once whose pod is lost.
    case actorsAreNotFenced
  }

  package var seed: UInt64
  package var hosts = 3
  package var drivers = 3
  /// How long things go wrong.
  package var time = Duration.seconds(20)
  /// How long nothing goes wrong, before all is compared: in its second half nothing is begun either.
  package var settlingTime = Duration.seconds(30)
  package var faults = Set(Fault.allCases)
  package var mutation: Mutation?
  package var keepsTranscript = false

  package init(seed: UInt64) { self.seed = seed }
}
