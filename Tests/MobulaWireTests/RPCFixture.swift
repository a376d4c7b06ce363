import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaWire

let echo = RPCMethod<String, String>("test.echo")
let fail = RPCMethod<String, Empty>("test.fail")
let hang = RPCMethod<String, Empty>("test.hang")
let callBack = RPCMethod<String, String>("test.callBack")
let count = RPCStreamMethod<Int, Int>("test.count")
let endless = RPCStreamMethod<Empty, Int>("test.endless")

struct Strange: Error, CustomStringConvertible { var description: String { "something strange" } }

/// Tells tests what a handler saw, in order, and lets them wait for it.
final class Journal: Sendable {
  private let entries: AsyncStream<String>
  private let continuation: AsyncStream<String>.Continuation
  private let highest = Mutex(0)

  init() { (entries, continuation) = AsyncStream.makeStream() }

  func write(_ entry: String) { continuation.yield(entry) }

  /// The next entry, in the order in which they were written.
  func next() async -> String? {
    var iterator = entries.makeAsyncIterator()
    return await iterator.next()
  }

  var number: Int { highest.withLock { $0 } }
  func raise(to number: Int) { highest.withLock { $0 = max($0, number) } }
}

/// A server with the tests' methods, and clients of it.
struct Fixture {
  let token = ClusterToken.random()
  let journal = Journal()
  var options = RPCOptions()
  var endpoint = Endpoint.tcp(host: "127.0.0.1", port: 0)

  static let client = Hello(role: .driver, name: "client")
  static let server = Hello(role: .head, name: "server")

  var router: RPCRouter {
    var router = RPCRouter()
    router.on(echo) { text, _ in text }
    router.on(fail) { text, _ in
      if text == "strange" { throw Strange() }
      throw MobulaError(.full, text)
    }
    router.on(hang) { [journal] text, _ in
      journal.write("started \(text)")
      await untilCancelled()
      journal.write("cancelled \(text)")
      return Empty()
    }
    router.on(callBack) { text, connection in try await connection.call(echo, "back: \(text)") }
    router.on(count) { number, _, writer in
      for element in 0..<abs(number) { try await writer.write(element) }
      if number < 0 { throw MobulaError(.notFound, "No more than \(-number).") }
    }
    router.on(endless) { [journal] _, _, writer in
      var element = 0
      do {
        while true {
          journal.raise(to: element)
          try await writer.write(element)
          element += 1
        }
      } catch {
        journal.write("stopped writing")
        throw error
      }
    }
    return router
  }

  func serve<Value>(
    _ body: (RPCServer) async throws -> Value, onConnect: (@Sendable (RPCConnection) async -> Void)? = nil,
    onDisconnect: (@Sendable (RPCConnection) async -> Void)? = nil
  ) async throws -> Value {
    let server = try await RPCServer.bind(
      to: endpoint, token: token, hello: Self.server, router: router, options: options, onConnect: onConnect,
      onDisconnect: onDisconnect)
    do {
      let value = try await body(server)
      await server.close()
      return value
    } catch {
      await server.close()
      throw error
    }
  }

  func connect(to server: RPCServer, router: RPCRouter = RPCRouter()) async throws -> RPCConnection {
    try await RPCConnection.connect(
      to: server.endpoint, token: token, hello: Self.client, router: router, options: options)
  }

  /// A connection to a server of its own.
  func withConnection<Value>(
    router: RPCRouter = RPCRouter(), _ body: (RPCConnection) async throws -> Value
  ) async throws -> Value {
    try await serve { server in
      let connection = try await connect(to: server, router: router)
      do {
        let value = try await body(connection)
        await connection.close()
        return value
      } catch {
        await connection.close()
        throw error
      }
    }
  }
}

/// Returns when the task that waits is cancelled.
func untilCancelled() async {
  let (stream, _) = AsyncStream<Never>.makeStream()
  for await _ in stream {}
}

/// The `MobulaError` that `body` throws.
func error(of body: () async throws -> Void, _ location: SourceLocation = #_sourceLocation) async -> MobulaError {
  do {
    try await body()
    Issue.record("nothing was thrown", sourceLocation: location)
  } catch let error as MobulaError {
    return error
  } catch {
    Issue.record("\(error) was thrown", sourceLocation: location)
  }
  return MobulaError(.unknown, "")
}

/// A new folder for sockets and files, removed at the end.
func withFolder<Value>(_ body: (String) async throws -> Value) async throws -> Value {
  let path = try makeTemporaryDirectory("wire", in: "/tmp")
  func remove() {
    if let folder = opendir(path) {
      while let entry = readdir(folder) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        if name != ".", name != ".." { unlink("\(path)/\(name)") }
      }
      closedir(folder)
    }
    rmdir(path)
  }
  defer { remove() }
  return try await body(path)
}
