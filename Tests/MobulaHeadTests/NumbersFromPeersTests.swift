import MobulaCore
import MobulaWire
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// Numbers that others send may be anything; none of them ends the head, or uses up what it counts.
@Suite struct NumbersFromPeersTests {
  @Test(arguments: [1 << 31 - 1, 1 << 31, UInt32.max - 1, .max])
  func jobsAreNumberedAfterAnAbsurdOne(number: UInt32) async throws {
    try await withHead { cluster in
      _ = try await cluster.host(1, holds: [object(1, job: 7)])
      _ = try await cluster.host(2, holds: [object(1, job: number)])
      let record = LeaseRecord(lease: lease(1), job: JobID(number), demand: ["CPU": 1])
      _ = try await cluster.pod(2, ["CPU": 1], leases: [record])
      var jobs: Set<JobID> = []
      for _ in 0..<3 { jobs.insert(try await cluster.driver().job) }
      #expect(jobs.count == 3 && !jobs.contains(JobID(7)) && !jobs.contains(JobID(number)))
    }
  }

  @Test func theLastJobIsTheLast() {
    #expect(JobID(.max).next == nil)
    #expect(JobID(.max - 1).next == JobID(.max))
  }

  @Test func claimsAreNumberedAfterAnAbsurdOne() throws {
    var directory = ObjectDirectoryStateMachine()
    directory.beginSettling()
    let url: Name = "s3://models/one"
    _ = directory.registered(
      host(1),
      HostInventory(
        sealed: [SealedReplica(object: object(1), geometry: geometry, digest: digest())], holds: [object(1)],
        names: [url: KnownName(object(1), .url(claim: .max)), url + "#e1": KnownName(object(1), .version)]))
    _ = directory.settled()
    let first = directory.numberClaim()
    let second = directory.numberClaim()
    #expect(first < second)
    _ = directory.changed(host(1), [sealed(object(2), held: true)])
    _ = try directory.named(url, object(2), claim: second)
    #expect(directory.names[url] == object(2))
    _ = try directory.named(url, object(1), claim: .max)
    #expect(directory.numberClaim() > second)
  }

  /// As many objects of the largest size that there is as their bytes don't add up in 64 bits.
  @Test func theStatusAddsUpWhatCanNotBe() async throws {
    let size = ChunkGeometry.maximumCount * ChunkGeometry.chunkSizes.upperBound
    let largest = try ChunkGeometry(objectSize: size, chunkSize: ChunkGeometry.chunkSizes.upperBound)
    let count = Int.max / size + 2
    let reports = (0..<count).map {
      ReplicaReport(object: object(UInt64($0), job: 0), geometry: largest, digest: digest())
    }
    try await withHead { cluster in
      _ = try await cluster.host(1, replicas: reports)
      let tool = try await cluster.connect(.tool, "tool")
      let status = try await tool.call(HeadAPI.status, StatusRequest())
      #expect(status.hosts.map(\.objects) == [count])
      #expect(status.hosts.map(\.bytes) == [.largest])
    }
  }

  @Test(arguments: [-1, Int.min, Int.max]) func anAmountOfBytesThatCanNotBeIsRefused(bytes: Int) throws {
    let encoded = try CBOREncoder().encode(bytes)
    #expect(throws: DecodingError.self) { try CBORDecoder().decode(ByteCount.self, from: encoded) }
    #expect(ByteCount(.max) + ByteCount(1) == ByteCount(.max))
    #expect(ByteCount(.min) + ByteCount(-1) == ByteCount(.min))
  }
}
