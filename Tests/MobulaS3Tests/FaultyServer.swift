import MobulaTestKit
import Synchronization

/// An HTTP server that answers exactly what a test tells it, also what no server should.
final class FaultyServer: Sendable {
  private let silent: SilentPort
  var port: Int { silent.port }
  private let counts = Mutex<[Request]>([])

  struct Request: Sendable {
    /// From 0.
    var number: Int
    var head: String
    var body: [UInt8]

    func header(_ name: String) -> String? {
      let line = head.split(separator: "\r\n").first { $0.lowercased().hasPrefix("\(name): ") }
      return line.map { String($0.dropFirst(name.count + 2)) }
    }
  }

  struct Reply: Sendable {
    /// Sent before the connection is closed.
    var bytes: [UInt8]
    /// Closed by a reset, rather than in order.
    var resets = false
  }

  /// - Parameter answer: from the request's number (from 0) and its head to the bytes that are sent before the
  ///   connection is closed.
  convenience init(_ answer: @escaping @Sendable (Int, String) -> [UInt8]) throws {
    try self.init(replying: { Reply(bytes: answer($0.number, $0.head)) })
  }

  init(replying answer: @escaping @Sendable (Request) -> Reply) throws {
    silent = try SilentPort()
    try silent.listen("faulty") { [self] in serve($0, answer) }
  }

  func stop() { silent.stop() }

  /// The heads of all requests so far.
  var requests: [String] { received.map(\.head) }
  var received: [Request] { counts.withLock { $0 } }

  private func serve(_ connection: SilentConnection, _ answer: (Request) -> Reply) {
    guard let head = connection.head() else { return }
    var request = Request(number: 0, head: head, body: [])
    guard let body = connection.body(request.header("content-length").flatMap { Int($0) } ?? 0) else { return }
    request.body = body
    counts.withLock {
      request.number = $0.count
      $0.append(request)
    }
    let reply = answer(request)
    connection.answer(reply.bytes, resets: reply.resets)
  }
}

/// An answer's bytes: head, and as much of the body as is given.
func answer(_ status: String, _ headers: [String: String] = [:], _ body: some Sequence<UInt8> = []) -> [UInt8] {
  let body = Array(body)
  var head = "HTTP/1.1 \(status)\r\nConnection: close\r\n"
  for (name, value) in ["Content-Length": "\(body.count)"].merging(headers, uniquingKeysWith: { $1 }) {
    head += "\(name): \(value)\r\n"
  }
  return Array("\(head)\r\n".utf8) + body
}
