import MobulaCore
import Testing

@testable import MobulaWire

@Suite struct CallTests {
  @Test func answersOverTCP() async throws {
    try await Fixture().withConnection { connection in
      let answer = try await connection.call(echo, "hello")
      #expect(answer == "hello")
      #expect(connection.peer == Fixture.server)
    }
  }

  @Test func answersOverUnixSockets() async throws {
    try await withFolder { folder in
      try await Fixture(endpoint: .unix(path: "\(folder)/rpc.sock")).withConnection { connection in
        let answer = try await connection.call(echo, "hello")
        #expect(answer == "hello")
      }
    }
  }

  @Test func passesErrorsOn() async throws {
    try await Fixture().withConnection { connection in
      let full = await error { _ = try await connection.call(fail, "No room for 7 bytes.") }
      #expect(full.code == .full)
      #expect(full.message == "No room for 7 bytes.")
      #expect(full.file == "MobulaWireTests/RPCFixture.swift")
      let strange = await error { _ = try await connection.call(fail, "strange") }
      #expect(strange.code == .workFailed)
      #expect(strange.message == "something strange")
    }
  }

  @Test func refusesWhatNobodyOffers() async throws {
    try await Fixture().withConnection { connection in
      let unknown = await error { _ = try await connection.call(RPCMethod<Empty, Empty>("test.none"), Empty()) }
      #expect(unknown.code == .notFound)
      #expect(unknown.message.contains("test.none"))
      let stream = await error { _ = try await connection.call(RPCMethod<Int, Int>("test.count"), 1) }
      #expect(stream.code == .mismatch)
      let other = await error { _ = try await connection.call(RPCMethod<Int, String>("test.echo"), 1) }
      #expect(other.code == .protocolViolation)
      let answer = try await connection.call(echo, "still there")
      #expect(answer == "still there")
    }
  }

  @Test func carriesAThousandAtOnce() async throws {
    try await Fixture().withConnection { connection in
      let answers = try await withThrowingTaskGroup(of: (Int, String).self) { group in
        for number in 0..<1000 {
          group.addTask { (number, try await connection.call(echo, "number \(number)")) }
        }
        return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
      }
      #expect(answers.count == 1000)
      #expect(answers.allSatisfy { $0.value == "number \($0.key)" })
    }
  }

  @Test func calleeCallsBack() async throws {
    var router = RPCRouter()
    router.on(echo) { text, _ in "client says \(text)" }
    try await Fixture().withConnection(router: router) { connection in
      let answer = try await connection.call(callBack, "x")
      #expect(answer == "client says back: x")
    }
  }

  @Test func enforcesDeadlinesOnBothSides() async throws {
    let fixture = Fixture()
    try await fixture.withConnection { connection in
      let late = await error { _ = try await connection.call(hang, "a", deadline: .milliseconds(30)) }
      #expect(late.code == .deadlineExceeded)
      #expect(late.message.contains("test.hang"))
      #expect(late.message.contains("head server"))
      #expect(late.message.contains("0.03 seconds"))
      #expect(await fixture.journal.next() == "started a")
      #expect(await fixture.journal.next() == "cancelled a")
      let past = await error { _ = try await connection.call(echo, "b", deadline: .zero) }
      #expect(past.code == .deadlineExceeded)
    }
  }

  @Test func cancellationReachesTheHandler() async throws {
    let fixture = Fixture()
    try await fixture.withConnection { connection in
      let task = Task { try await connection.call(hang, "a") }
      #expect(await fixture.journal.next() == "started a")
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
      #expect(await fixture.journal.next() == "cancelled a")
      let answer = try await connection.call(echo, "still there")
      #expect(answer == "still there")
    }
  }

  @Test func aCancelledTaskCallsNobody() async throws {
    try await Fixture().withConnection { connection in
      let task = Task {
        await untilCancelled()
        return try await connection.call(echo, "x")
      }
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
    }
  }

  @Test func lossFailsPendingCalls() async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      let connection = try await fixture.connect(to: server)
      let task = Task { try await connection.call(hang, "a") }
      #expect(await fixture.journal.next() == "started a")
      await server.close()
      let lost = await error { _ = try await task.value }
      #expect(lost.code == .connectionClosed)
      #expect(lost.message.contains("test.hang"))
      #expect(lost.message.contains("head server"))
      #expect(await fixture.journal.next() == "cancelled a")
      await connection.waitUntilClosed()
      let after = await error { _ = try await connection.call(echo, "x") }
      #expect(after.code == .connectionClosed)
    }
  }

  @Test func tellsWhoCameAndWent() async throws {
    let fixture = Fixture()
    let journal = fixture.journal
    try await fixture.serve { server in
      let connection = try await fixture.connect(to: server)
      #expect(await journal.next() == "driver client came")
      await connection.close()
      #expect(await journal.next() == "driver client went")
    } onConnect: {
      journal.write("\($0.peer.title) came")
    } onDisconnect: {
      journal.write("\($0.peer.title) went")
    }
  }

  @Test func refusesToSendTooMuch() async throws {
    var fixture = Fixture()
    fixture.options.maximumFrame = ByteCount(1000)
    try await fixture.withConnection { connection in
      let large = await error { _ = try await connection.call(echo, String(repeating: "x", count: 1000)) }
      #expect(large.code == .invalidArgument)
      // 1000 bytes with the id and kind of the answer: what came in may still not go out.
      let answer = try await connection.call(echo, String(repeating: "x", count: 900))
      #expect(answer.utf8.count == 900)
    }
  }

  @Test func waitingForTheCloseCanBeCancelled() async throws {
    try await Fixture().withConnection { connection in
      let task = Task { await connection.waitUntilClosed() }
      task.cancel()
      await task.value
      let answer = try await connection.call(echo, "open")
      #expect(answer == "open")
    }
  }
}
