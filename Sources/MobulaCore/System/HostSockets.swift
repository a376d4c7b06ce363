/// The names of what a host has in its directory, for who listens or writes there and for who connects or reads.
package enum HostSockets {
  /// The socket that processes of the host connect to.
  package static func host(in directory: String) -> String { directory + "/host.sock" }
  /// The store's own socket, which hands out its memory.
  package static func store(in directory: String) -> String { directory + "/store.sock" }
  /// The identifier of the cluster whose head was reached last, for a host that is started again while there is none.
  package static func cluster(in directory: String) -> String { directory + "/cluster" }
}
