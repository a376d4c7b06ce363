import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// Certificates made with the tool, and clusters that use them.
@Suite struct TLSClusterTests {
  private func certificates(_ arguments: String..., in folder: TemporaryFolder) async throws -> Finished {
    let directory = folder.path + "/tls"
    return try await run(
      Products.mobula, ["certificates", arguments[0], "--directory", directory] + arguments.dropFirst())
  }

  private func withCertificates(_ body: (TemporaryFolder) async throws -> Void) async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let made = try await certificates("create", "--cluster", "lab", in: folder)
    try #require(made.status.isSuccess, "\(made)")
    try await body(folder)
  }

  @Test func certificatesAreMadeOnceAndShown() async throws {
    try await withCertificates { folder in
      let again = try await certificates("create", "--cluster", "lab", in: folder)
      #expect(again.status == .status(1) && again.errors.contains("is there already"), "\(again)")
      let added = try await certificates("add", "--host", "10.0.0.7", "--days", "2", in: folder)
      #expect(added.status.isSuccess, "\(added)")
      let shown = try await certificates("show", in: folder)
      #expect(
        shown.output.contains("Mobula cluster lab (CA)") && shown.output.contains("names    10.0.0.7"), "\(shown)")
      let json = try await certificates("show", "--json", in: folder)
      #expect(json.output.contains("\"expiry\""), "\(json)")
      let other = try await certificates("add", "--host", "a b", in: folder)
      #expect(!other.status.isSuccess && other.errors.contains("no host for --host"), "\(other)")
      let nothing = try await run(Products.mobula, ["certificates", "show", "--directory", "/nowhere"])
      #expect(nothing.status == .status(1) && nothing.errors.contains("No certificates are in"), "\(nothing)")
    }
  }

  @Test func aClusterWorksAndAdmitsItsOwnOnly() async throws {
    try await withCertificates { folder in
      try await withCluster(others: 1, environment: ["MOBULA_TLS": folder.path + "/tls"]) { cluster in
        let file = cluster.folder.path + "/model.bin"
        let bytes = Data((0..<5_000_001).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
        try bytes.write(to: URL(filePath: file))
        let put = try await cluster.mobula("put", file)
        #expect(put.status.isSuccess, "\(put)")
        let copy = cluster.folder.path + "/copy.bin"
        let got = try await cluster.mobula("get", "model.bin", "-o", copy, host: 1)
        #expect(got.status.isSuccess, "\(got)")
        #expect(try Data(contentsOf: URL(filePath: copy)) == bytes)

        let join = ["start", "--address", cluster.head, "--token-file", cluster.directory(0) + "/token"]
        let plain = try await run(Products.mobula, join, environment: cluster.environment(5))
        #expect(plain.status == .status(1) && plain.errors.contains("uses TLS"), "\(plain)")

        let other = try TemporaryFolder()
        defer { other.remove() }
        _ = try await certificates("create", "--cluster", "lab", in: other)
        let stranger = try await run(
          Products.mobula, join + ["--tls", other.path + "/tls"], environment: cluster.environment(6))
        #expect(stranger.status == .status(1) && stranger.errors.contains("cluster's CA"), "\(stranger)")
      }
    }
  }

  @Test func tasksRunOverTLS() async throws {
    try await withCertificates { folder in
      try await withCluster(
        ["--pod", "main:CPU=2", "--pod", "other:CPU=2,special=1", "--tls", folder.path + "/tls"]
      ) { cluster in
        let finished = try await run(
          Products.testApp, [],
          environment: cluster.environment(0).merging(["SCENARIO": "tasks", "MARKER": cluster.folder.path + "/marker"])
          {
            $1
          }, within: .seconds(120))
        #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
      }
    }
  }

  @Test func aTLSHostMeetsAPlainHead() async throws {
    try await withCertificates { folder in
      try await withCluster { cluster in
        let joined = try await run(
          Products.mobula,
          [
            "start", "--address", cluster.head, "--token-file", cluster.directory(0) + "/token", "--tls",
            folder.path + "/tls",
          ], environment: cluster.environment(5))
        #expect(joined.status == .status(1) && joined.errors.contains("does not speak TLS"), "\(joined)")
        let nowhere = try await cluster.mobula(
          "start", "--head", "--port", "0", "--tls", "/nowhere", "--directory", folder.path + "/x")
        #expect(nowhere.status == .status(1) && nowhere.errors.contains("/nowhere"), "\(nowhere)")
      }
    }
  }
}
