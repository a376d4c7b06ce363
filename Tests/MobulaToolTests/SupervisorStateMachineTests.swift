import MobulaCore
import Testing

@testable import MobulaSupervisor
@testable import MobulaTool

@Suite struct SupervisorStateMachineTests {
  private let killed = ChildProcess.Exit.signal(9)
  private let refused = ChildProcess.Exit.status(SupervisorStateMachine.refusedStatus)

  private func started() -> SupervisorStateMachine {
    var machine = SupervisorStateMachine()
    machine.ready("head")
    machine.ready("host")
    return machine
  }

  private func pause(_ action: SupervisorStateMachine.Action) -> Duration? {
    if case .restart(let pause) = action { pause } else { nil }
  }

  @Test func tenCrashesOfAPodEndNothing() {
    var machine = started()
    let pauses = (0..<12).map { _ in pause(machine.ended("pod a", lifetime: .milliseconds(100), exit: killed)) }
    #expect(
      pauses == [50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000].map { .milliseconds($0) })
    #expect(machine.ended("host", lifetime: .seconds(60), exit: killed) == .restart(after: .milliseconds(50)))
  }

  @Test func aThousandEndsAreNoOverflow() {
    var machine = started()
    for _ in 0..<1000 { _ = machine.ended("pod a", lifetime: .zero, exit: killed) }
    #expect(machine.ended("pod a", lifetime: .zero, exit: killed) == .restart(after: .seconds(30)))
    #expect(machine.ended("pod a", lifetime: .seconds(1 << 40), exit: killed) == .restart(after: .milliseconds(50)))
  }

  /// A head that is killed every two seconds is there again at once, each time: what its start takes is no part of its
  /// life, and must not add up to a pause.
  @Test func lifeMakesUpForEnds() {
    var machine = started()
    for _ in 0..<200 {
      #expect(machine.ended("head", lifetime: .milliseconds(1200), exit: killed) == .restart(after: .milliseconds(50)))
    }
    for _ in 0..<5 { _ = machine.ended("head", lifetime: .zero, exit: killed) }
    #expect(machine.ended("head", lifetime: .seconds(4), exit: killed) == .restart(after: .milliseconds(50 << 2)))
  }

  @Test func whatRefusesToRunIsTriedAgainSlowly() {
    var machine = started()
    let pauses = (0..<7).map { _ in pause(machine.ended("host", lifetime: .milliseconds(20), exit: refused)) }
    #expect(pauses == [1, 2, 4, 8, 16, 30, 30].map { .seconds($0) })
    #expect(
      machine.notStarted("pod a", MobulaError(.inputOutput, "no descriptors")) == .restart(after: .seconds(1)))
  }

  @Test func aFirstStartGivesUp() {
    var machine = SupervisorStateMachine()
    machine.ready("head")
    machine.ready("pod a")
    guard case .giveUp = machine.ended("host", lifetime: .seconds(5), exit: refused) else {
      Issue.record("it went on")
      return
    }
    var other = SupervisorStateMachine()
    for _ in 0..<SupervisorStateMachine.maximumQuickEnds {
      #expect(pause(other.ended("pod a", lifetime: .zero, exit: killed)) != nil)
    }
    guard case .giveUp = other.ended("pod a", lifetime: .zero, exit: killed) else {
      Issue.record("it went on")
      return
    }
    let error = MobulaError(.inputOutput, "no descriptors")
    var third = SupervisorStateMachine()
    #expect(third.notStarted("host", error) == .giveUp(error))
  }

  @Test func nothingIsStartedAgainWhileAllStops() {
    var machine = started()
    machine.stop()
    #expect(machine.ended("host", lifetime: .zero, exit: .status(0)) == .nothing)
    #expect(machine.notStarted("host", MobulaError(.inputOutput, "")) == .nothing)
  }
}
