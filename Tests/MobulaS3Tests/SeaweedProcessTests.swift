import Glibc
import MobulaCore
import Testing

@testable import MobulaBench

@Suite struct SeaweedProcessTests {
  @Test func withoutSeaweedTheErrorSaysWhatToRun() async throws {
    await #expect {
      _ = try await SeaweedServer.start(pythonEnvironment: "/nowhere")
    } throws: { error in
      let message = (error as? MobulaError)?.message ?? ""
      return message.hasPrefix("SeaweedFS is not installed in /nowhere: ") && message.contains("`make environment`")
    }
  }

  /// What happens when its owner is killed: the lifeline closes, and nobody calls `stop`.
  @Test(
    .enabled(if: WithSeaweed.isInstalled, "skipped: SeaweedFS is not installed (make environment)"),
    .timeLimit(.minutes(1)))
  func aServerGoesWithItsOwner() async throws {
    var owner: SeaweedProcess? = try SeaweedProcess(
      program: SeaweedBinary.locate(pythonEnvironment: nil), address: "127.0.0.1", ports: .free(), accessKey: "a",
      secretKey: "s")
    let (server, watchdog, folder) = try #require(owner.map { ($0.server, $0.watchdog, $0.folder.path) })
    #expect(access(folder, F_OK) == 0)
    #expect(server.exit == nil)
    owner = nil
    // It does not end by itself: without the guard this waits until the time limit.
    _ = await server.waitForExit()
    #expect(await watchdog.waitForExit().isSuccess)
    #expect(access(folder, F_OK) == -1)
  }

  @Test func portsComeInPairsThatDoNotMeet() throws {
    let ports = try SeaweedPorts.free()
    let all = [ports.master, ports.volume, ports.filer, ports.s3, ports.metrics].flatMap { [$0, $0 + 10_000] }
    #expect(Set(all).count == 10)
    #expect(all.allSatisfy { 10_000..<32_000 ~= $0 })
  }

  @Test func bytesSentAreReadFromTheMetrics() {
    let text = """
      # TYPE SeaweedFS_s3_bucket_traffic_sent_bytes_total counter
      SeaweedFS_s3_bucket_traffic_received_bytes_total{bucket="b"} 7
      SeaweedFS_s3_bucket_traffic_sent_bytes_total{bucket="b"} 1.28e+08
      SeaweedFS_s3_bucket_traffic_sent_bytes_total{bucket="bb"} 5
      """
    #expect(SeaweedMetrics.bytesSent(bucket: "b", in: text) == 128_000_000)
    #expect(SeaweedMetrics.bytesSent(bucket: "c", in: text) == 0)
  }
}
