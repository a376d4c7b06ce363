internal import MobulaCore

/// The TCP ports of one SeaweedFS. Each of its services listens on a second one, 10000 above, for gRPC.
struct SeaweedPorts: Sendable {
  let master: Int
  let volume: Int
  let filer: Int
  let s3: Int
  let metrics: Int

  /// Free ones.
  ///
  /// Another process may take one before SeaweedFS does: then it does not start, and others are drawn.
  /// - Throws: `MobulaError` (`unavailable`) when there are none.
  static func free() throws(MobulaError) -> SeaweedPorts {
    let found = try FreePorts.draw(5, alsoFree: 10_000)
    return SeaweedPorts(master: found[0], volume: found[1], filer: found[2], s3: found[3], metrics: found[4])
  }

  /// The sockets that it makes in `/tmp`, whatever it is told, and leaves there.
  var sockets: [String] {
    ["filer-\(filer)", "s3-\(s3)"].map { "/tmp/seaweedfs-\($0).sock" }
      + [("master", master), ("volume", volume), ("filer", filer), ("s3", s3)].map {
        "/tmp/seaweedfs-\($0)-grpc-\($1 + 10_000).sock"
      }
  }
}
