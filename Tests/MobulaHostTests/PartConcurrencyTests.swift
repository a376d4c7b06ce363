import Testing

@testable import MobulaHost

/// How many parts a host reads from S3 at once, on a virtual clock.
@Suite struct PartConcurrencyTests {
  /// A host whose bytes come at a rate that depends on the number of parts, for so many seconds.
  ///
  /// - Returns: the number of parts read at once at the end.
  private func run(
    _ concurrency: inout PartConcurrency, from start: Double = 0, seconds: Double, hasHosts: Bool,
    rate: (Int) -> Double
  ) -> Int {
    var missing = 1e12
    var time = start
    while time < start + seconds {
      concurrency.tick(missing: Int(missing), hasHosts: hasHosts, now: .seconds(time))
      while concurrency.isAbove { concurrency.ended() }
      while concurrency.begins() {}
      missing -= rate(concurrency.running) * 0.05
      time += 0.05
    }
    return concurrency.running
  }

  @Test func startsWithManyAloneAndFewBesideHosts() {
    var alone = PartConcurrency(maximum: 64)
    #expect(run(&alone, seconds: 0.1, hasHosts: false) { _ in 1e9 } == 8)
    var beside = PartConcurrency(maximum: 64)
    #expect(run(&beside, seconds: 0.1, hasHosts: true) { _ in 1e9 } == 2)
  }

  @Test(arguments: [false, true]) func takesAsManyAsBringMore(hasHosts: Bool) {
    // Every connection brings 80 MB a second, up to 2.4 GB a second, which is 30 connections.
    var concurrency = PartConcurrency(maximum: 64)
    let number = run(&concurrency, seconds: 10, hasHosts: hasHosts) { min(Double($0) * 80e6, 2.4e9) }
    #expect(number >= 30 && number <= 34)
  }

  @Test func aFullLinkStaysWithTwoBesideHosts() {
    // What S3 brings more, hosts bring less: 105 MB a second in all.
    var concurrency = PartConcurrency(maximum: 64)
    var most = 0
    for second in 0..<30 {
      most = max(most, run(&concurrency, from: Double(second), seconds: 1, hasHosts: true) { _ in 105e6 })
    }
    // It tries more now and then.
    #expect(most <= 4)
    #expect(run(&concurrency, from: 30, seconds: 0.1, hasHosts: true) { _ in 105e6 } <= 3)
  }

  @Test func hostsThatComeLeaveFew() {
    var concurrency = PartConcurrency(maximum: 64)
    #expect(run(&concurrency, seconds: 4, hasHosts: false) { Double($0) * 80e6 } == 64)
    #expect(run(&concurrency, from: 4, seconds: 0.2, hasHosts: true) { _ in 105e6 } == 2)
    #expect(run(&concurrency, from: 4.2, seconds: 0.2, hasHosts: false) { _ in 105e6 } == 64)
  }

  @Test func halvesWhenS3AsksForLess() {
    var concurrency = PartConcurrency(maximum: 64)
    #expect(run(&concurrency, seconds: 0.1, hasHosts: false) { _ in 1e9 } == 8)
    // Requests that were under way together count once.
    for _ in 0..<8 { concurrency.throttled(startedAt: .seconds(0.05), now: .seconds(0.2)) }
    #expect(run(&concurrency, from: 0.2, seconds: 0.1, hasHosts: false) { _ in 1e9 } == 4)
    concurrency.throttled(startedAt: .seconds(0.25), now: .seconds(0.3))
    #expect(run(&concurrency, from: 0.3, seconds: 0.1, hasHosts: false) { _ in 1e9 } == 2)
  }
}
