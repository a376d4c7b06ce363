import MobulaCore
import Testing

@testable import MobulaWire

@Suite struct StreamTests {
  @Test func deliversAllInOrder() async throws {
    try await Fixture().withConnection { connection in
      var elements: [Int] = []
      for try await element in try await connection.stream(count, 1000) { elements.append(element) }
      #expect(elements == Array(0..<1000))
    }
  }

  @Test func errorsComeAfterTheElements() async throws {
    try await Fixture().withConnection { connection in
      var elements: [Int] = []
      let thrown = await error {
        for try await element in try await connection.stream(count, -3) { elements.append(element) }
      }
      #expect(thrown.code == .notFound)
      #expect(thrown.message == "No more than 3.")
      #expect(elements == [0, 1, 2])
    }
  }

  @Test func aSlowReaderBoundsTheWriter() async throws {
    var fixture = Fixture()
    fixture.options.streamWindow = 4
    try await fixture.withConnection { connection in
      let stream = try await connection.stream(endless, Empty())
      let iterator = stream.makeAsyncIterator()
      for expected in 0..<10 {
        #expect(try await iterator.next() == expected)
        // Written at most: those read, a window beyond them, and the one that waits.
        #expect(fixture.journal.number <= expected + 1 + 4)
      }
      // A call round trip later the writer has had its chance to run ahead, and has not.
      _ = try await connection.call(echo, "x")
      #expect(fixture.journal.number <= 14)
      #expect(fixture.journal.number >= 9)
    }
  }

  @Test func droppingAStreamStopsItsWriter() async throws {
    let fixture = Fixture()
    try await fixture.withConnection { connection in
      for try await element in try await connection.stream(endless, Empty()) where element == 100 { break }
      #expect(await fixture.journal.next() == "stopped writing")
    }
  }

  @Test func cancellingAReaderStopsTheWriter() async throws {
    let fixture = Fixture()
    try await fixture.withConnection { connection in
      let task = Task {
        for try await element in try await connection.stream(endless, Empty()) where element == 100 {
          fixture.journal.write("reading")
        }
      }
      #expect(await fixture.journal.next() == "reading")
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
      #expect(await fixture.journal.next() == "stopped writing")
    }
  }

  @Test func aDeadlineEndsAStream() async throws {
    let fixture = Fixture()
    try await fixture.withConnection { connection in
      let late = await error {
        for try await _ in try await connection.stream(endless, Empty(), deadline: .milliseconds(30)) {}
      }
      #expect(late.code == .deadlineExceeded)
      #expect(late.message.contains("test.endless"))
      #expect(await fixture.journal.next() == "stopped writing")
    }
  }

  @Test func lossEndsStreamsOnBothSides() async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      let connection = try await fixture.connect(to: server)
      let stream = try await connection.stream(endless, Empty())
      let iterator = stream.makeAsyncIterator()
      #expect(try await iterator.next() == 0)
      await server.close()
      let lost = await error { while try await iterator.next() != nil {} }
      #expect(lost.code == .connectionClosed)
      #expect(lost.message.contains("test.endless"))
      #expect(await fixture.journal.next() == "stopped writing")
      #expect(try await iterator.next() == nil)
    }
  }
}
