/// The names of the sockets in a host's directory, for who listens at them and for who connects.
package enum HostSockets {
  /// The socket that processes of the host connect to.
  package static func host(in directory: String) -> String { directory + "/host.sock" }
  /// The store's own socket, which hands out its memory.
  package static func store(in directory: String) -> String { directory + "/store.sock" }
}
