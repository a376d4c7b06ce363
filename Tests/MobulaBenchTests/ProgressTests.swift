import Glibc
import Testing

@testable import MobulaTerminal

@Suite struct ProgressTests {
  private let begin = ContinuousClock.now

  /// 50 MB a second for two seconds, of 200 MB.
  private var halfway: ProgressState {
    var state = ProgressState("fetching", total: 200_000_000, at: begin)
    for second in 1...2 { state.advance(to: second * 50_000_000, at: begin + .seconds(second)) }
    return state
  }

  @Test func aLineHasBarPercentBytesRateAndTimeLeft() {
    #expect(
      halfway.line(width: 79) == "fetching [#############-------------]  50%  100 MB of 200 MB  50 MB/s  2 s left")
    #expect(halfway.plainLine() == "fetching: 50%  100 MB of 200 MB  50 MB/s  2 s left")
  }

  @Test(arguments: [0, 1, 20, 40, 60, 61, 62, 63, 64, 80, 200])
  func noLineIsWiderThanTheTerminal(width: Int) {
    #expect(halfway.line(width: width).count <= width)
  }

  @Test func whereTheBarHasNoRoomItGivesWay() {
    #expect(halfway.line(width: 60) == "fetching  50%  100 MB of 200 MB  50 MB/s  2 s left")
  }

  @Test func withoutATotalThereIsNoShareAndNoEnd() {
    var state = ProgressState("reading", total: nil, at: begin)
    state.advance(to: 10_000_000, at: begin + .seconds(1))
    #expect(state.line(width: 80) == "reading  10 MB  10 MB/s")
    #expect(state.remaining == nil)
  }

  @Test func aRateNeedsTime() {
    var state = ProgressState("x", total: 100, at: begin)
    state.advance(to: 50, at: begin + .milliseconds(10))
    #expect(state.rate == nil)
    #expect(state.plainLine() == "x: 50%  50 B of 100 B")
  }

  @Test func aStallBringsTheRateDown() throws {
    var state = halfway
    let before = try #require(state.rate)
    for second in 3...4 { state.advance(to: 100_000_000, at: begin + .seconds(second)) }
    #expect(try #require(state.rate) < before / 3)
    // Then there is none, nor a time that is left.
    state.advance(to: 100_000_000, at: begin + .seconds(6))
    #expect(state.plainLine() == "fetching: 50%  100 MB of 200 MB  nothing for 4 s")
    state.advance(to: 150_000_000, at: begin + .seconds(7))
    #expect(state.plainLine() == "fetching: 75%  150 MB of 200 MB  50 MB/s  1 s left")
  }

  /// Where all was sent and nobody answers, and where there was never anything.
  @Test func aStandstillIsSaidAtEveryPoint() {
    var sent = ProgressState("put", total: 100, at: begin)
    sent.advance(to: 100, at: begin + .seconds(1))
    sent.advance(to: 100, at: begin + .seconds(5))
    #expect(sent.plainLine() == "put: 100%  100 B of 100 B  waiting for 4 s")
    var asked = ProgressState("fetch", total: nil, at: begin)
    asked.advance(to: 0, at: begin + .seconds(7))
    #expect(asked.plainLine() == "fetch: nothing for 7 s")
  }

  @Test func whatWasThereBeforeGivesNoRate() {
    let end = begin + .seconds(4)
    #expect(halfway.closingLine(at: end) == "fetching: 100 MB in 4.0 s, 25 MB/s")
    #expect(
      halfway.closingLine(at: end, came: 10_000_000) == "fetching: 100 MB, of which 10 MB came in 4.0 s, 2.5 MB/s")
    // An object's header came with it.
    #expect(halfway.closingLine(at: end, came: 100_000_048) == "fetching: 100 MB in 4.0 s, 25 MB/s")
  }

  @Test func lostWorkStartsTheRateAnew() {
    var state = halfway
    state.advance(to: 0, at: begin + .seconds(3))
    #expect(state.rate == nil)
    state.advance(to: 30_000_000, at: begin + .seconds(4))
    #expect(state.rate == 30_000_000)
  }

  @Test func moreThanEverythingIsEverything() {
    var state = ProgressState("x", total: 100, at: begin)
    state.advance(to: 150, at: begin + .seconds(1))
    #expect(state.line(width: 70).hasPrefix("x [##############################]  100%"))
    #expect(state.remaining == nil)
    #expect(ProgressState("x", total: 0, at: begin).line(width: 60) == "x  100%  0 B of 0 B")
  }

  @Test func durationsAreRoundedUp() {
    #expect(ProgressState.text(of: .milliseconds(1)) == "1 s")
    #expect(ProgressState.text(of: .seconds(59)) == "59 s")
    #expect(ProgressState.text(of: .milliseconds(59_100)) == "1:00")
    #expect(ProgressState.text(of: .seconds(3605)) == "1:00:05")
  }

  @Test func theEndSaysTimeAndMeanRate() {
    #expect(halfway.closingLine(at: begin + .seconds(2)) == "fetching: 100 MB in 2.0 s, 50 MB/s")
    var small = ProgressState("x", total: 1, at: begin)
    small.advance(to: 1, at: begin + .milliseconds(20))
    #expect(small.closingLine(at: begin + .milliseconds(20)) == "x: 1 B in 0.0 s")
  }

  @Test func elsewhereThanOnATerminalThereAreWholeLinesAndFewOfThem() throws {
    var ends: [CInt] = [-1, -1]
    #expect(pipe(&ends) == 0)
    let progress = Progress("putting", total: 100, descriptor: ends[1])
    for done in 1...100 { progress.update(done) }
    progress.finish()
    progress.finish()
    progress.update(5)
    close(ends[1])
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(ends[0], &buffer, buffer.count)
    close(ends[0])
    let text = String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    #expect(text.hasPrefix("putting: 100 B in "))
    #expect(text.split(separator: "\n").count == 1)
  }
}
