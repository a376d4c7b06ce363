import MobulaCore
import Testing

@Suite struct LinkRateTests {
  @Test func bitsAndBytesAreRead() {
    #expect(LinkRate("500mbit")?.bitsPerSecond == 500_000_000)
    #expect(LinkRate("1.2Gbit")?.bitsPerSecond == 1_200_000_000)
    #expect(LinkRate("100MB/s")?.bitsPerSecond == 800_000_000)
    #expect(LinkRate("1MiB/s")?.bitsPerSecond == 8_388_608)
    #expect(LinkRate("2000b/s")?.bitsPerSecond == 16_000)
    for text in ["", "100/s", "100M/s", "MB/s", "1b/s", "5", "100 Mb", "1e30gbit", "-5mbit", "nanbit", "9000PB/s"] {
      #expect(LinkRate(text) == nil, "\(text)")
    }
  }

  @Test func timeFollowsFromBytes() {
    #expect(LinkRate("8kbit")!.time(for: 500) == .milliseconds(500))
    #expect(LinkRate("10gbit")!.time(for: 1_250_000_000) == .seconds(1))
    #expect(LinkRate("1kbit")!.time(for: .max) == .nanoseconds(Int64.max))
  }

  @Test func labelsAreRead() {
    #expect(HostLabel("zone=eu-1") == HostLabel("zone", "eu-1"))
    #expect(HostLabel("a.b/c=1_2")?.description == "a.b/c=1_2")
    for text in ["", "zone", "zone=", "=a", "a=b=c", "a b=c", "a=ü", "a=" + String(repeating: "x", count: 64)] {
      #expect(HostLabel(text) == nil, "\(text)")
    }
    #expect(HostSelector.all.matches([:]))
    #expect(HostSelector.label("zone", "a").matches(["zone": "a", "x": "y"]))
    #expect(!HostSelector.label("zone", "a").matches(["zone": "b"]))
  }
}
