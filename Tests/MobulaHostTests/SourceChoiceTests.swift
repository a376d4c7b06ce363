import Testing

@testable import MobulaHost

/// Whether S3 is read although other hosts have the bytes.
@Suite struct SourceChoiceTests {
  private let gigabyte = 1_000_000_000

  /// S3 has brought 10 MB in 0.1 s.
  private func choice() -> SourceChoice {
    var choice = SourceChoice()
    choice.began(now: .zero)
    choice.ended(bytes: 10_000_000, now: .milliseconds(100))
    return choice
  }

  @Test func s3IsReadWhereItIsMuchFasterForAWhile() {
    var choice = choice()
    #expect(choice.bytesPerSecond(now: .seconds(1)) == 100_000_000)
    #expect(choice.tick(hosts: 49e6, missing: gigabyte, now: .seconds(1)) == nil)
    #expect(choice.tick(hosts: 49e6, missing: gigabyte, now: .seconds(2)) == nil)
    // For a moment they were as fast.
    #expect(choice.tick(hosts: 51e6, missing: gigabyte, now: .seconds(2.5)) == nil)
    #expect(choice.tick(hosts: 3e6, missing: gigabyte, now: .seconds(3)) == nil)
    #expect(choice.tick(hosts: 3e6, missing: gigabyte, now: .seconds(4.9)) == nil)
    #expect(
      choice.tick(hosts: 3e6, missing: gigabyte, now: .seconds(5)) == "hosts brought 3 MB a second, S3 100 MB")
    #expect(choice.tick(hosts: 3e6, missing: 0, now: .seconds(6)) == nil)
  }

  /// Eight parts that begin together and come one after the other are no faster than the last of them.
  @Test func whatIsReadAtTheSameTimeSharesTheTime() {
    var choice = SourceChoice()
    for _ in 0..<8 { choice.began(now: .seconds(1)) }
    #expect(choice.bytesPerSecond(now: .seconds(1)) == nil)
    for part in 1...8 { choice.ended(bytes: 1_000_000, now: .seconds(1) + .milliseconds(100 * part)) }
    #expect(choice.bytesPerSecond(now: .seconds(60)) == 10_000_000)
    // Time in which nothing was read does not count.
    choice.began(now: .seconds(60))
    choice.ended(bytes: 2_000_000, now: .milliseconds(60_200))
    #expect(choice.bytesPerSecond(now: .seconds(61)) == 10_000_000)
  }

  @Test func anUnknownS3IsTriedWhenItWouldTakeLong() {
    var choice = SourceChoice()
    for second in 0..<10 { #expect(choice.tick(hosts: 101e6, missing: gigabyte, now: .seconds(second)) == nil) }
    #expect(choice.tick(hosts: 99e6, missing: gigabyte, now: .seconds(10)) == nil)
    #expect(
      choice.tick(hosts: 99e6, missing: gigabyte, now: .seconds(12))
        == "hosts brought 99 MB a second, and S3 was tried")
  }

  @Test func hostsAreNotJudgedWhileS3IsRead() {
    var choice = choice()
    #expect(choice.tick(hosts: 0, missing: gigabyte, now: .seconds(1)) == nil)
    choice.began(now: .seconds(2))
    #expect(choice.tick(hosts: 0, missing: gigabyte, now: .seconds(4)) == nil)
    choice.ended(bytes: 0, now: .seconds(4))
    #expect(choice.tick(hosts: 0, missing: gigabyte, now: .seconds(5)) == nil)
    #expect(choice.tick(hosts: 0, missing: gigabyte, now: .seconds(7)) != nil)
  }
}
