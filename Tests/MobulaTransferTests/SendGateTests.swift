import Testing

@testable import MobulaTransfer

@Suite struct SendGateTests {
  @Test func fewChunksLeaveAtATime() {
    var gate = SendGateStateMachine()
    var numbers: [UInt64] = []
    while gate.wait(at: .zero) == nil { numbers.append(gate.entered(at: .zero)) }
    #expect(numbers.count == SendGateStateMachine.chunksAtOnce)
    gate.left(numbers[0], sent: 1_000_000, at: .milliseconds(10))
    #expect(gate.wait(at: .milliseconds(10)) == nil)
  }

  @Test func aSlowReceiverKeepsNobodyWaitingForLong() {
    var gate = SendGateStateMachine()
    let first = gate.entered(at: .zero)
    gate.left(first, sent: 1_000_000, at: .milliseconds(10))
    for _ in 0..<SendGateStateMachine.chunksAtOnce { _ = gate.entered(at: .milliseconds(10)) }
    // Three times as long as the first took, and a little.
    #expect(gate.wait(at: .milliseconds(20)) == .milliseconds(21))
    #expect(gate.wait(at: .milliseconds(41)) == nil)
  }

  @Test func whatFailedSaysNothing() {
    var gate = SendGateStateMachine()
    let first = gate.entered(at: .zero)
    gate.left(first, sent: 0, at: .microseconds(1))
    for _ in 0..<SendGateStateMachine.chunksAtOnce { _ = gate.entered(at: .zero) }
    #expect(gate.wait(at: .zero) == .milliseconds(50))
  }
}
