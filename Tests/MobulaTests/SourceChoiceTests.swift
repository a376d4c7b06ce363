import Testing

@testable import MobulaHost

/// Whether S3 is read although other hosts have the bytes.
@Suite struct SourceChoiceTests {
  private let gigabyte = 1_000_000_000

  @Test func s3IsReadWhereItIsMuchFasterForAWhile() {
    var choice = SourceChoice()
    choice.read(bytes: 10_000_000, seconds: 0.1, beside: 0)
    #expect(choice.bytesPerSecond == 100_000_000)
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

  @Test func whatIsReadAtTheSameTimeIsAdded() {
    var choice = SourceChoice()
    choice.read(bytes: 10_000_000, seconds: 0.2, beside: 1)
    #expect(choice.bytesPerSecond == 100_000_000)
    // What was not to be read says nothing.
    choice.read(bytes: 0, seconds: 0.2, beside: 1)
    #expect(choice.bytesPerSecond == 100_000_000)
  }

  @Test func anUnknownS3IsTriedWhenItWouldTakeLong() {
    var choice = SourceChoice()
    for second in 0..<10 { #expect(choice.tick(hosts: 101e6, missing: gigabyte, now: .seconds(second)) == nil) }
    #expect(choice.tick(hosts: 99e6, missing: gigabyte, now: .seconds(10)) == nil)
    #expect(
      choice.tick(hosts: 99e6, missing: gigabyte, now: .seconds(12)) == "hosts brought 99 MB a second, and S3 was tried"
    )
  }

  @Test func hostsAreNotJudgedWhileS3IsRead() {
    var choice = SourceChoice()
    choice.read(bytes: 10_000_000, seconds: 0.1, beside: 0)
    #expect(choice.tick(hosts: 0, missing: gigabyte, now: .seconds(0)) == nil)
    #expect(choice.isReading() == nil)
    #expect(choice.tick(hosts: 0, missing: gigabyte, now: .seconds(3)) == nil)
    #expect(choice.tick(hosts: 0, missing: gigabyte, now: .seconds(5)) != nil)
  }
}
