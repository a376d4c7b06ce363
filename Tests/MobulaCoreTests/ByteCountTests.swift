import MobulaCore
import Testing

struct ByteCountTests {
  @Test(arguments: [
    ("0", 0), ("4096", 4096), ("4096B", 4096), ("128MB", 128_000_000), ("1.5 GB", 1_500_000_000),
    ("64MiB", 67_108_864), ("64mib", 67_108_864), ("1k", 1000), ("1 kB", 1000), ("1Ki", 1024),
    ("2 TiB", 2_199_023_255_552),
    ("3t", 3_000_000_000_000), ("0.5K", 500), ("0.0005 kB", 1), ("4PB", 4_000_000_000_000_000),
    ("1PiB", 1_125_899_906_842_624),
  ])
  func textIsRead(text: String, bytes: Int) { #expect(ByteCount(text) == ByteCount(bytes)) }

  @Test(arguments: [
    "", "MB", "-1", "1.2.3", "1e3", "12 parsecs", "1BB", ".", "0x10", "nan", "inf", "\u{663}", "9000PB", "8000PB",
    "1 2MB",
    "4\u{212A}",
  ])
  func otherTextIsRefused(text: String) { #expect(ByteCount(text) == nil) }

  @Test(arguments: [
    (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1500, "1.5 kB"), (12_345, "12.3 kB"), (123_456, "123 kB"),
    (999_499, "999 kB"), (999_500, "1 MB"), (564_000_000, "564 MB"), (1_500_000_000, "1.5 GB"), (9_994_999, "9.99 MB"),
    (9_996_000, "10 MB"), (2_000_000_000_000, "2 TB"), (4_000_000_000_000_000, "4 PB"), (Int.max, "9223 PB"),
  ])
  func threeDigitsArePrinted(bytes: Int, text: String) { #expect(ByteCount(bytes).description == text) }

  @Test(arguments: [
    (999, "999B"), (1001, "1.01kB"), (564_300_001, "565MB"), (999_001, "1MB"), (1_500_000_000, "1.5GB"),
  ])
  func adviceIsNeverLess(bytes: Int, text: String) { #expect(ByteCount(bytes).roundedUp == text) }

  @Test func whatIsPrintedCanBeRead() {
    for exponent in 0...15 {
      for digit in [1, 2, 15, 999] {
        let count = ByteCount(digit * Int(pow10(exponent)))
        #expect(ByteCount(count.description) == count)
      }
    }
  }

  private func pow10(_ exponent: Int) -> Double { (0..<exponent).reduce(1) { power, _ in power * 10 } }

  @Test func unitsCountByThousand() {
    #expect(ByteCount.kilobytes(2).bytes == 2000)
    #expect(ByteCount.megabytes(2).bytes == 2_000_000)
    #expect(ByteCount.gigabytes(2).bytes == 2_000_000_000)
    #expect(ByteCount(1) < ByteCount(2))
  }

  @Test func countsTravelAsNumbers() throws {
    #expect(try CBOREncoder().encode(ByteCount(10)) == [10])
    #expect(try CBORDecoder().decode(ByteCount.self, from: [10]) == ByteCount(10))
  }
}
