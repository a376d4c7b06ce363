import Glibc
import MobulaCore
import Testing

struct MobulaErrorTests {
  @Test func errorsTravelAsTheyAre() throws {
    let error = MobulaError(.notFound, "There is no object x: put it first.", file: "A/B.swift", line: 12)
    #expect(try CBORDecoder().decode(MobulaError.self, from: CBOREncoder().encode(error)) == error)
    #expect("\(error)" == "There is no object x: put it first.")
  }

  @Test func codesOfNewerPeersAreUnknown() throws {
    let error = CBORValue.map([
      .init(.text("code"), .text("fromTheFuture")), .init(.text("message"), .text("m")),
      .init(.text("file"), .text("f")), .init(.text("line"), .unsigned(1)),
    ])
    #expect(try CBORDecoder().decode(MobulaError.self, from: error.encoded()).code == .unknown)
    for code: MobulaError.Code in [
      .invalidArgument, .notFound, .alreadyExists, .full, .unauthenticated, .denied, .unavailable, .deadlineExceeded,
      .cancelled, .connectionClosed, .protocolViolation, .corrupted, .inputOutput, .workFailed, .mismatch,
      .workerLost, .unschedulable, .unknown,
    ] {
      #expect(MobulaError.Code(code.description) == code)
    }
  }

  @Test func failedCallsSayWhy() {
    #expect(throws: MobulaError(.inputOutput, "Nothing: No such file or directory.", file: "f", line: 1)) {
      try systemCall("Nothing", file: "f", line: 1) { open("/nonexistent", O_RDONLY) }
    }
  }

  @Test func interruptedCallsAreMadeAgain() throws {
    var calls = 0
    let result: CInt = try systemCall("Nothing") {
      calls += 1
      if calls < 3 {
        errno = EINTR
        return -1
      }
      return 7
    }
    #expect(result == 7 && calls == 3)
  }
}
