import Testing

@testable import MobulaTransfer

@Suite struct SendGateTests {
  private func fill(_ gate: inout SendGateStateMachine, at now: Duration) -> [UInt64] {
    (0..<SendGateStateMachine.chunksAtOnce).map { _ in
      let number = gate.arrived()
      #expect(gate.enter(number, at: now) == nil)
      return number
    }
  }

  @Test func fewChunksLeaveAtATimeInTheOrderInWhichTheyCame() {
    var gate = SendGateStateMachine()
    let numbers = fill(&gate, at: .zero)
    let first = gate.arrived(), second = gate.arrived()
    #expect(gate.enter(first, at: .zero) != nil)
    gate.left(numbers[0], sent: 1_000_000, at: .milliseconds(10))
    #expect(gate.next == first)
    #expect(gate.enter(second, at: .milliseconds(10)) != nil)
    #expect(gate.enter(first, at: .milliseconds(10)) == nil)
    #expect(gate.enter(second, at: .milliseconds(10)) != nil)
    gate.left(numbers[1], sent: 1_000_000, at: .milliseconds(10))
    #expect(gate.enter(second, at: .milliseconds(10)) == nil)
  }

  @Test func aSlowReceiverKeepsNobodyWaitingForLong() {
    var gate = SendGateStateMachine()
    let first = gate.arrived()
    #expect(gate.enter(first, at: .zero) == nil)
    gate.left(first, sent: 1_000_000, at: .milliseconds(10))
    _ = fill(&gate, at: .milliseconds(10))
    // Three times as long as the first took, and a little.
    let next = gate.arrived()
    #expect(gate.enter(next, at: .milliseconds(20)) == .milliseconds(21))
    #expect(gate.enter(next, at: .milliseconds(41)) == nil)
  }

  @Test func whatFailedSaysNothing() {
    var gate = SendGateStateMachine()
    let first = gate.arrived()
    #expect(gate.enter(first, at: .zero) == nil)
    gate.left(first, sent: 0, at: .microseconds(1))
    _ = fill(&gate, at: .zero)
    let next = gate.arrived()
    #expect(gate.enter(next, at: .zero) == .milliseconds(50))
  }
}
