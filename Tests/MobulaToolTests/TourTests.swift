import MobulaCore
import Testing

/// The programs of Examples/Tour say what they are to say.
@Suite struct TourTests {
  @Test func everyStop() async throws {
    try await withCluster { cluster in
      let expected = [
        "parameter-server": "y = 3.0x + -2.0 after 200 updates\n",
        "word-count": "the 4\nand 2\ncat 2\n",
        "actor-pool": "300 answers by 3 actors; the best is \"question number 277\"\n",
        "as-they-come":
          "seed 13 had no luck\npi is about 3.14, by 39 estimates\nthe best is right to two digits\n",
      ]
      for (stop, output) in expected.sorted(by: { $0.key < $1.key }) {
        let finished = try await run(
          Products.tour, [stop], environment: cluster.environment(0), within: .seconds(60))
        #expect(finished.status.isSuccess && finished.output == output, "\(stop): \(finished)")
      }
      let lost = try await run(Products.tour, [], environment: cluster.environment(0))
      #expect(lost.status == .status(1) && lost.errors.contains("word-count"), "\(lost)")
    }
  }
}
