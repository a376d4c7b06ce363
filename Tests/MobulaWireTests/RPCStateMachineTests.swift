import MobulaCore
import Testing

@testable import MobulaWire

@Suite struct RPCStateMachineTests {
  typealias Machine = RPCStateMachine<String, String>
  let start = ContinuousClock.now
  var machine = Machine(peer: "host alpha", window: 4)

  func after(_ seconds: Int) -> ContinuousClock.Instant { start.advanced(by: .seconds(seconds)) }

  mutating func receive(_ message: RPCMessage) -> String { machine.receive(message, now: start).transcript }

  @Test mutating func aCallIsAnsweredOnce() {
    #expect(machine.call(1, "m", deadline: .seconds(9), now: start, waiter: "ada").transcript == "send")
    #expect(receive(.response(id: 1, body: [5])) == "resume ada [5]")
    #expect(receive(.response(id: 1, body: [5])) == "none")
    #expect(machine.cancel(1).transcript == "none")
  }

  @Test mutating func errorsReachTheirCaller() {
    _ = machine.call(1, "m", deadline: .seconds(9), now: start, waiter: "ada")
    #expect(receive(.error(id: 1, body: MobulaError(.full, "No room.").wire)) == "resume ada full")
    _ = machine.call(2, "m", deadline: .seconds(9), now: start, waiter: "ada")
    #expect(receive(.error(id: 2, body: [0xFF])) == "refuse protocolViolation")
  }

  @Test mutating func aCancelledCallIsForgotten() {
    _ = machine.call(1, "m", deadline: .seconds(9), now: start, waiter: "ada")
    #expect(machine.cancel(1).transcript == "cancel 1 ada")
    #expect(receive(.response(id: 1, body: [])) == "none")
    #expect(receive(.error(id: 1, body: MobulaError(.full, "").wire)) == "none")
  }

  @Test mutating func deadlinesPassInOrder() {
    _ = machine.call(1, "m", deadline: .seconds(9), now: start, waiter: "ada")
    _ = machine.call(2, "m", deadline: .seconds(3), now: start, waiter: "bob")
    #expect(machine.nextDeadline == after(3))
    #expect(machine.expire(now: after(2)).failed.isEmpty)
    let expiry = machine.expire(now: after(3))
    #expect(expiry.failed.map(\.waiter) == ["bob"])
    #expect(expiry.failed[0].error.code == .deadlineExceeded)
    #expect(
      expiry.failed[0].error.message
        == "host alpha did not answer \"m\" within 3.0 seconds: look whether it is overloaded, or give it a longer deadline."
    )
    #expect(expiry.messages == [.cancel(id: 2)])
    _ = receive(.response(id: 1, body: []))
    #expect(machine.expire(now: after(10)).failed.isEmpty)
    #expect(machine.nextDeadline == nil)
  }

  @Test mutating func endedCallsLeaveNoDeadlinesBehind() {
    for id in 1...10_000 as ClosedRange<UInt64> {
      _ = machine.call(id, "m", deadline: .seconds(9), now: start, waiter: "ada")
      _ = receive(.response(id: id, body: []))
    }
    #expect(machine.deadlines.count <= 66)
  }

  @Test mutating func aHandlerAnswersOnce() {
    #expect(receive(.request(id: 7, method: "m", milliseconds: 0, body: [1])) == "start m")
    #expect(machine.attach("task", to: 7) == true)
    #expect(machine.finish(7) == true)
    #expect(machine.finish(7) == false)
    #expect(receive(.cancel(id: 7)) == "none")
    #expect(machine.attach("task", to: 7) == false)
  }

  @Test mutating func aNumberInUseIsAViolation() {
    _ = receive(.request(id: 7, method: "m", milliseconds: 0, body: []))
    #expect(receive(.request(id: 7, method: "m", milliseconds: 0, body: [])) == "refuse protocolViolation")
    // The other direction's numbers are others.
    #expect(machine.call(7, "m", deadline: .seconds(9), now: start, waiter: "ada").transcript == "send")
  }

  @Test mutating func handlersAreCancelledByCallersAndDeadlines() {
    _ = receive(.request(id: 1, method: "m", milliseconds: 0, body: []))
    _ = machine.attach("first", to: 1)
    #expect(receive(.cancel(id: 1)) == "cancel first []")
    _ = receive(.request(id: 2, method: "m", milliseconds: 2000, body: []))
    _ = machine.attach("second", to: 2)
    #expect(machine.expire(now: after(2)).handlers == ["second"])
    #expect(machine.finish(2) == false)
  }

  @Test mutating func streamsGiveCreditBackInHalves() {
    #expect(machine.openStream(1, "s", deadline: nil, now: start).transcript == "send")
    for element in 1...4 as ClosedRange<UInt8> { #expect(receive(.element(id: 1, body: [element])) == "none") }
    #expect(next() == "[1]")
    #expect(next() == "[2] credit 2")
    #expect(next() == "[3]")
    #expect(next() == "[4] credit 2")
    #expect(next() == "suspend")
    #expect(receive(.element(id: 1, body: [5])) == "resume ada [5]")
    #expect(next() == "suspend")
    #expect(receive(.element(id: 1, body: [6])) == "resume ada [6] credit 2")
    #expect(receive(.end(id: 1)) == "none")
    #expect(next() == "finish")
  }

  @Test mutating func moreElementsThanCreditAreAViolation() {
    _ = machine.openStream(1, "s", deadline: nil, now: start)
    for _ in 1...4 { #expect(receive(.element(id: 1, body: [])) == "none") }
    #expect(receive(.element(id: 1, body: [])) == "refuse protocolViolation")
  }

  @Test mutating func elementsAreReadBeforeTheEnd() {
    _ = machine.openStream(1, "s", deadline: .seconds(3), now: start)
    _ = receive(.element(id: 1, body: [1]))
    #expect(machine.expire(now: after(3)).messages == [.cancel(id: 1)])
    #expect(receive(.element(id: 1, body: [2])) == "none")
    #expect(next() == "[1]")
    #expect(next() == "fail deadlineExceeded")
    #expect(next() == "finish")
  }

  @Test mutating func oneReaderAtATime() {
    _ = machine.openStream(1, "s", deadline: nil, now: start)
    #expect(next() == "suspend")
    #expect(next() == "fail invalidArgument")
    #expect(receive(.end(id: 1)) == "resume ada end")
  }

  @Test mutating func callsAndStreamsAreNotMixedUp() {
    _ = machine.call(1, "m", deadline: .seconds(9), now: start, waiter: "ada")
    _ = machine.openStream(2, "s", deadline: nil, now: start)
    #expect(receive(.element(id: 1, body: [])) == "refuse protocolViolation")
    #expect(receive(.end(id: 1)) == "refuse protocolViolation")
    #expect(receive(.response(id: 2, body: [])) == "refuse protocolViolation")
    #expect(receive(.element(id: 3, body: [])) == "none")
    #expect(receive(.end(id: 3)) == "none")
    #expect(receive(.credit(id: 3, count: 1)) == "none")
  }

  @Test mutating func writersWaitForCredit() {
    #expect(receive(.openStream(id: 1, method: "s", milliseconds: 0, credit: 1, body: [])) == "start s")
    _ = machine.attach("task", to: 1)
    #expect(machine.write(1) == .send)
    #expect(machine.write(1) == .suspend)
    #expect(machine.awaitCredit(1, ticket: 1, waiter: "ada") == .suspend)
    #expect(machine.awaitCredit(1, ticket: 2, waiter: "bob") == .suspend)
    #expect(machine.awaitCredit(1, ticket: 3, waiter: "cid") == .suspend)
    #expect(machine.cancelWrite(1, ticket: 2) == "bob")
    #expect(machine.cancelWrite(1, ticket: 2) == nil)
    #expect(receive(.credit(id: 1, count: 1)) == "grant ada")
    #expect(receive(.credit(id: 1, count: 3)) == "grant cid")
    #expect(machine.write(1) == .send)
    #expect(machine.write(1) == .send)
    #expect(machine.awaitCredit(1, ticket: 4, waiter: "dan") == .suspend)
    #expect(receive(.cancel(id: 1)) == "cancel task [\"dan\"]")
    #expect(machine.write(1) == .stop)
    #expect(machine.unread.code == .cancelled)
  }

  @Test mutating func senselessCreditIsAViolation() {
    _ = receive(.request(id: 1, method: "m", milliseconds: 0, body: []))
    #expect(receive(.credit(id: 1, count: 1)) == "refuse protocolViolation")
    _ = receive(.openStream(id: 2, method: "s", milliseconds: 0, credit: UInt32(Int32.max), body: []))
    #expect(receive(.credit(id: 2, count: 1)) == "refuse protocolViolation")
    #expect(receive(.credit(id: 2, count: 0)) == "refuse protocolViolation")
    #expect(
      receive(.openStream(id: 3, method: "s", milliseconds: 0, credit: 0, body: [])) == "refuse protocolViolation")
  }

  @Test mutating func closingEndsEverything() {
    _ = machine.call(1, "m", deadline: .seconds(9), now: start, waiter: "caller")
    _ = machine.openStream(2, "s", deadline: nil, now: start)
    _ = machine.next(2, waiter: "reader")
    _ = machine.openStream(3, "t", deadline: nil, now: start)
    _ = receive(.element(id: 3, body: [1]))
    _ = receive(.openStream(id: 1, method: "u", milliseconds: 0, credit: 1, body: []))
    _ = machine.attach("task", to: 1)
    _ = machine.write(1)
    _ = machine.awaitCredit(1, ticket: 1, waiter: "writer")

    let closing = machine.close(MobulaError(.connectionClosed, "It was unplugged."))
    #expect(closing?.failed.map(\.waiter).sorted() == ["caller", "reader", "writer"])
    #expect(closing?.failed.allSatisfy { $0.error.code == .connectionClosed } == true)
    #expect(
      closing?.failed.first { $0.waiter == "caller" }?.error.message
        == "\"m\" has no answer, since the connection to host alpha is gone (It was unplugged): look whether it still runs, and try again."
    )
    #expect(closing?.handlers == ["task"])

    #expect(machine.close(MobulaError(.connectionClosed, "Again.")) == nil)
    #expect(machine.call(4, "m", deadline: .seconds(9), now: start, waiter: "").transcript == "fail connectionClosed")
    #expect(machine.openStream(5, "s", deadline: nil, now: start).transcript == "fail connectionClosed")
    #expect(receive(.request(id: 9, method: "m", milliseconds: 0, body: [])) == "none")
    #expect(machine.finish(1) == false)
    #expect(machine.write(1) == .stop)
    #expect(machine.nextDeadline == nil)
    #expect(machine.next(3, waiter: "late").transcript == "[1]")
    #expect(machine.next(3, waiter: "late").transcript == "fail connectionClosed")
  }

  @Test mutating func pingsAreAnsweredAndGoodbyesBelieved() {
    #expect(receive(.ping) == "send pong")
    #expect(receive(.pong) == "none")
    #expect(receive(.goodbye([])) == "closed connectionClosed")
    // Whatever the peer accuses us of, here its connection is closed.
    #expect(receive(.goodbye(MobulaError(.protocolViolation, "Bad.").wire)) == "closed connectionClosed")
  }

  /// The reader of stream 1 wants an element.
  mutating func next() -> String { machine.next(1, waiter: "ada").transcript }
}

// Actions as one line each, so that tests read as transcripts.

extension RPCStateMachine<String, String>.ReceiveAction {
  var transcript: String {
    switch self {
    case .none: "none"
    case .resume(let waiter, let result, let message):
      "resume \(waiter) \(result.transcript)" + (message.map { " \($0.transcript)" } ?? "")
    case .grant(let writers): "grant " + writers.joined(separator: " ")
    case .start(let request): "start \(request.method)"
    case .tell(let method, let body): "tell \(method) \(Array(body))"
    case .cancel(let handler, let writers): "cancel \(handler ?? "nobody") \(writers)"
    case .send(let message): "send \(message.transcript)"
    case .refuse(let error): "refuse \(error.code)"
    case .closed(let error): "closed \(error.code)"
    }
  }
}

extension RPCStateMachine<String, String>.NextAction {
  var transcript: String {
    switch self {
    case .deliver(let body, let message): "\(Array(body))" + (message.map { " \($0.transcript)" } ?? "")
    case .suspend: "suspend"
    case .finish: "finish"
    case .fail(let error): "fail \(error.code)"
    }
  }
}

extension RPCStateMachine<String, String>.StartAction {
  var transcript: String {
    switch self {
    case .send: "send"
    case .fail(let error): "fail \(error.code)"
    }
  }
}

extension RPCStateMachine<String, String>.CancelAction {
  var transcript: String {
    switch self {
    case .none: "none"
    case .send(let message, let waiter): "\(message.transcript) \(waiter ?? "nobody")"
    }
  }
}

extension Result<RPCMessage.Body?, MobulaError> {
  fileprivate var transcript: String {
    switch self {
    case .success(let body): body.map { "\(Array($0))" } ?? "end"
    case .failure(let error): "\(error.code)"
    }
  }
}

extension RPCMessage {
  fileprivate var transcript: String {
    switch self {
    case .credit(_, let count): "credit \(count)"
    case .cancel(let id): "cancel \(id)"
    case .pong: "pong"
    default: "\(self)"
    }
  }
}
