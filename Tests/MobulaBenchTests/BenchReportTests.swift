import FoundationEssentials
import MobulaCore
import Testing

@testable import MobulaBench

@Suite struct BenchReportTests {
  private func loader(_ host: String, _ seconds: Double, copied: Int = 0) -> BenchLoader {
    BenchLoader(host: host, pod: "\(host)-b", seconds: seconds, touched: 0.01, bytesCopied: copied)
  }

  private var relay: BenchCase {
    BenchCase(
      id: "replication-5", sources: .relay,
      runs: [
        BenchRun(loaders: [loader("h1", 1.3), loader("h2", 1.4)], s3Bytes: 0, wireBytes: 270_000_000),
        BenchRun(loaders: [loader("h1", 1.5), loader("h2", 1.2)], s3Bytes: 0, wireBytes: 272_000_000),
        BenchRun(loaders: [loader("h1", 1.31), loader("h2", 1.32)], s3Bytes: 0, wireBytes: 271_000_000),
      ],
      size: 128_000_000, lineRate: 100_000_000)
  }

  @Test func aCaseIsTheMedianOfItsRuns() {
    let relay = relay
    #expect(relay.loaders.map(\.seconds) == [1.31, 1.32])
    #expect(relay.slowest == 1.4)
    #expect(relay.limit == 1.28)
    #expect(relay.ratio == 1.4 / 1.28)
    #expect(relay.wireBytes == 271_000_000)
  }

  @Test func medians() {
    #expect(median([3]) == 3)
    #expect(median([4, 1, 3]) == 3)
    #expect(median([4, 1, 3, 2]) == 2.5)
    #expect(lowerMedian([4, 1, 3, 2]) == 2)
  }

  @Test func whatOneRunDoesNotKnowTheCaseDoesNotKnow() {
    let runs = [1, nil].map { BenchRun(loaders: [loader("h1", 1)], s3Bytes: $0, wireBytes: nil) }
    let item = BenchCase(id: "s3-1", sources: .direct, runs: runs, size: 1, lineRate: nil)
    #expect(item.s3Bytes == nil)
    #expect(item.wireBytes == nil)
  }

  @Test func everyKeyIsWrittenAndUnknownsAreNull() throws {
    let local = BenchCase(
      id: "replication-3", sources: nil, runs: [BenchRun(loaders: [loader("h0", 0.5)], s3Bytes: 0, wireBytes: nil)],
      size: 1000, lineRate: nil)
    let report = BenchReport(
      emulation: .netns, size: 1000, nic: 840_000_000, tls: true, lineRate: 100_400_000, cases: [local])
    let text = String(decoding: try report.json(), as: UTF8.self)
    let packed = text.filter { $0 != " " && $0 != "\n" }
    #expect(
      packed
        == #"{"cases":[{"id":"replication-3","limit":null,"#
        + #""loaders":[{"bytesCopied":0,"error":null,"host":"h0","pod":"h0-b","seconds":0.5,"touched":0.01}],"#
        + #""predicted":null,"ratio":null,"s3Bytes":0,"slowest":0.5,"sources":null,"wireBytes":null}],"#
        + #""emulation":"netns","lineRate":100400000,"nic":840000000,"size":1000,"tls":true,"version":1}"#)
    #expect(text.hasSuffix("}\n"))
    #expect(try JSONDecoder().decode(BenchReport.self, from: report.json()) == report)
  }

  @Test func aCaseIsPrintedInColumns() {
    #expect(
      relay.text(size: 128_000_000) == """
        replication-5 relay, 2 loaders: slowest 1.400 s, 1.09 × the limit of 1.280 s, 0 B from S3, 271 MB on the wire
          host  pod     ready  MB/s  limit ×  touched  copied
          h1    h1-b  1.310 s  97.7     1.02  10.0 ms     0 B
          h2    h2-b  1.320 s  97.0     1.03  10.0 ms     0 B
        """)
  }

  @Test func aLoaderWithoutTheModelSaysWhy() {
    var loader = loader("h1", 12)
    loader.error = MobulaError(.notFound, "The object is lost.")
    let item = BenchCase(
      id: "fault-lost", sources: .relay, runs: [BenchRun(loaders: [loader], s3Bytes: 0, wireBytes: nil)],
      size: 128_000_000, lineRate: 100_000_000)
    let lines = item.text(size: 128_000_000).split(separator: "\n").map(String.init)
    #expect(lines[2].contains("never"))
    #expect(lines[3] == "  h1 has no model: The object is lost.")
  }

  @Test func theSummaryHasALineACase() {
    let local = BenchCase(
      id: "replication-3", sources: nil,
      runs: [BenchRun(loaders: [loader("h0", 0.000_031)], s3Bytes: nil, wireBytes: nil)], size: 128_000_000,
      lineRate: nil)
    let report = BenchReport(emulation: .loopback, size: 128_000_000, lineRate: nil, cases: [relay, local])
    #expect(
      report.summary() == """
        case           sources  loaders   slowest       MB/s    limit  ratio  simulated  copied  from S3  on the wire
        replication-5  relay          2   1.400 s       91.4  1.280 s   1.09          -     0 B      0 B       271 MB
        replication-3  -              1  0.031 ms  4129032.3        -      -          -     0 B        -            -
        """)
  }

  @Test func timesHaveUnitsOfTheirSize() {
    #expect(BenchCase.time(12.3456) == "12.346 s")
    #expect(BenchCase.time(0.9996) == "1.000 s")
    #expect(BenchCase.time(0.5) == "500 ms")
    #expect(BenchCase.time(0.0415) == "41.5 ms")
    #expect(BenchCase.time(0.000_03) == "0.030 ms")
  }

  @Test func fixedPointNumbersKeepTheirZeros() {
    #expect(fixed(1.005, digits: 1) == "1.0")
    #expect(fixed(0.05, digits: 2) == "0.05")
    #expect(fixed(-1.25, digits: 1) == "-1.3")
    #expect(fixed(-0.001, digits: 1) == "0.0")
    #expect(fixed(7.5, digits: 0) == "8")
    #expect(fixed(.infinity, digits: 1) == "inf")
  }
}
