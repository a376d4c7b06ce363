import ArgumentParser
import Mobula
import MobulaCore
import MobulaStore
import MobulaTerminal

struct StoreCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "store", abstract: "Show what this host's store holds: segments, objects, pins, fragmentation.",
    discussion: "Examples:\n  mobula store\n  mobula store --json")

  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    let statistics = try await withCluster(directory.options) { try await $0.storeStatistics() }
    if json.json { return try printJSON(statistics) }
    func bytes(_ count: Int) -> String { "\(ByteCount(count))" }
    print(
      "capacity \(bytes(statistics.capacity)), used \(bytes(statistics.used)) (\(bytes(statistics.inMemory)) objects, \(bytes(statistics.warm)) kept warm, fragmentation \(percent(statistics.fragmentation)))"
    )
    print(
      "\(statistics.objects) objects; pinned \(statistics.pinned) (\(bytes(statistics.pinnedBytes))), held \(statistics.held) (\(bytes(statistics.heldBytes))), on disk \(statistics.spilled - statistics.spilledElsewhere) (\(bytes(statistics.spilledBytes - statistics.spilledElsewhereBytes))), in S3 \(statistics.spilledElsewhere) (\(bytes(statistics.spilledElsewhereBytes))), deleted but pinned \(statistics.doomed)"
    )
    print("index and pages \(bytes(statistics.overhead)), beside the capacity")
    let names = Dictionary(statistics.clients.map { ($0.client, $0) }, uniquingKeysWith: { a, _ in a })
    var segments = TextTable([
      ("segment", .left), ("written by", .left), ("objects", .right), ("bytes", .right), ("memory", .right),
      ("warm", .right),
    ])
    for segment in statistics.segments {
      let maker = segment.maker.flatMap { names[$0] }.map { "\($0.name) (process \($0.process))" }
      segments.add([
        "\(segment.segment)", segment.isOwn ? "the store" : maker ?? "an ended process", "\(segment.objects)",
        bytes(segment.inMemory), bytes(segment.used), bytes(segment.warm),
      ])
    }
    print(segments.lines().joined(separator: "\n"))
    var clients = TextTable([("process", .left), ("name", .left), ("pins", .right), ("pinned", .right)])
    for client in statistics.clients {
      clients.add(["\(client.process)", client.name, "\(client.pinned)", bytes(client.pinnedBytes)])
    }
    print(clients.lines().joined(separator: "\n"))
    var jobs = TextTable([("job", .left), ("objects", .right), ("bytes", .right)])
    for job in statistics.jobs {
      jobs.add([job.job == .commandLine ? "command line" : "\(job.job)", "\(job.objects)", bytes(job.bytes)])
    }
    print(jobs.lines().joined(separator: "\n"))
  }

  private func percent(_ share: Double) -> String { "\(Int((share * 100).rounded())) %" }
}
