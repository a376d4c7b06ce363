import Glibc
import MobulaCore
import MobulaHost
import MobulaStore
import MobulaWire

/// A process's connection to its host: the host's memory, and the holds of this process.
final class StoreSession: Sendable {
  let host: RPCConnection
  let attached: AttachReply
  private let client: StoreClient
  let holds: HoldReporter

  private init(host: RPCConnection, attached: AttachReply) {
    self.host = host
    self.attached = attached
    client = StoreClient(descriptorSocket: attached.descriptorSocket)
    holds = HoldReporter { batch, _ in
      do {
        let changes = ProcessHoldChanges(added: batch.holds.added, removed: batch.holds.removed)
        _ = try await host.call(HostAPI.holdsChanged, changes, deadline: .seconds(60))
      } catch {
        // The host would go on believing what is no longer so; without a connection it believes nothing.
        await host.close()
        throw error
      }
    }
  }

  /// Connects to the host whose sockets are in `directory`.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when no host runs there, `unauthenticated` for another token.
  static func connect(directory: String, token: ClusterToken, hello: Hello) async throws -> StoreSession {
    let endpoint = Endpoint.unix(path: HostConfiguration.socket(in: directory))
    let connection: RPCConnection
    do {
      connection = try await RPCConnection.connect(to: endpoint, token: token, hello: hello)
    } catch let error as MobulaError where error.code == .unavailable {
      throw nothingRuns("nobody answers at \(endpoint)")
    }
    do {
      return StoreSession(host: connection, attached: try await connection.call(HostAPI.attach, Empty()))
    } catch {
      await connection.close()
      throw error
    }
  }

  /// The token that a host keeps beside its sockets.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when nothing was ever started there.
  static func token(in directory: String) throws(MobulaError) -> ClusterToken {
    let file = ClusterOptions.tokenFile(in: directory)
    guard access(file, F_OK) == 0 else { throw nothingRuns("there is no \(file)") }
    return try ClusterToken.read(file: file)
  }

  private static func nothingRuns(_ why: String) -> MobulaError {
    MobulaError(
      .unavailable,
      "No Mobula host runs on this machine (\(why)): start one with `mobula start --head`, or `mobula start --address HOST:PORT` to join a cluster."
    )
  }

  func close() async { await host.close() }

  /// Pins an object once all its bytes are in this host's store, and maps it.
  func pin(_ object: ObjectID, sources: SourcePolicy, deadline: Duration) async throws -> PinnedObject {
    let reply: PinReply
    do {
      reply = try await host.call(HostAPI.pin, PinRequest(object: object, policy: sources), deadline: deadline)
    } catch let error as MobulaError where error.code == .deadlineExceeded {
      throw MobulaError(
        .deadlineExceeded,
        "Object \(object) did not arrive within \(deadline): is it still being made, or is the time too short?")
    }
    do {
      return PinnedObject(
        object: object, digest: reply.digest, bytesCopied: reply.bytesCopied,
        mapped: try await onThread(named: "map") { [client] in try client.map(reply.placement) }, session: self)
    } catch {
      unpin(object)
      throw error
    }
  }

  /// Lets go of a pin; the host hears of it soon, or that the process is gone.
  func unpin(_ object: ObjectID) {
    Task { _ = try? await host.call(HostAPI.unpin, ObjectRequest(object)) }
  }

  /// Makes an object of `size` bytes, which `write` fills, and seals it.
  ///
  /// - Returns: its digest.
  @discardableResult
  func make(
    _ object: ObjectID, size: Int, holds: Bool, contains: [ObjectID],
    write: @escaping @Sendable (UnsafeMutableRawBufferPointer) throws -> Void
  ) async throws -> ObjectDigest {
    do {
      let placement = try await host.call(
        HostAPI.create, CreateRequest(object: object, size: size, holds: holds), deadline: .seconds(120))
      let mapped = try await onThread(named: "map") { [client] in try client.map(placement) }
      guard placement.writable else {
        throw MobulaError(
          .protocolViolation, "The host gave read-only memory for object \(object): its version may be another.")
      }
      // Copying blocks its thread for as long as memory takes; small copies are not worth a thread.
      if size < 1 << 20 {
        try mapped.withUnsafeMutableBytes { try write($0) }
      } else {
        try await onThread(named: "put") { try mapped.withUnsafeMutableBytes { try write($0) } }
      }
      return try await host.call(
        HostAPI.seal, SealRequest(object: object, contains: contains), deadline: .seconds(300)
      ).digest
    } catch {
      await cleanUp { [host] in _ = try? await host.call(HostAPI.abort, ObjectRequest(object)) }
      throw error
    }
  }
}
