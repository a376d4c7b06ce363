import Glibc
import MobulaCore
import Testing

@testable import MobulaStore

/// The descriptor socket: what it gives to whom, and what it does with nonsense.
struct DescriptorServerTests {
  @Test func severalTicketsOnOneConnection() throws {
    let host = try TemporaryStore()
    let client = host.store.attach()
    let tickets = try (1...3 as ClosedRange<UInt64>).map {
      try host.store.create(ObjectID($0), size: 100, client: client).ticket!
    }
    let connection = try Connection(host.path)
    // Two at once and one in two parts: requests are found by their length.
    connection.send(DescriptorProtocol.request(tickets[0]) + DescriptorProtocol.request(tickets[1]))
    #expect(connection.answer() == .granted)
    #expect(connection.answer() == .granted)
    let last = DescriptorProtocol.request(tickets[2])
    connection.send(Array(last.prefix(5)))
    connection.send(Array(last.dropFirst(5)))
    #expect(connection.answer() == .granted)
    connection.send(last)
    #expect(connection.answer() == .refused, "it was used")
    #expect(connection.answer() == nil, "the connection is closed then")
  }

  @Test func nonsenseIsRefused() throws {
    let host = try TemporaryStore()
    let unknown = try Connection(host.path)
    unknown.send(DescriptorProtocol.request(DescriptorTicket(high: 1, low: 2)))
    #expect(unknown.answer() == .refused)
    #expect(unknown.answer() == nil)
    let wrong = try Connection(host.path)
    wrong.send(Array("GET / HTTP/1.1\r\nHost: me".utf8))
    #expect(wrong.answer() == .malformed)
    #expect(wrong.answer() == nil)
  }

  @Test func aSilentClientIsDropped() throws {
    let host = try TemporaryStore()
    host.store.close()
    let server = try DescriptorServer(path: host.path, patience: .milliseconds(1))
    try server.start { _ in nil }
    let silent = try Connection(host.path)
    #expect(silent.answer() == nil)
    server.close()
  }

  @Test func moreClientsThanAllowedWaitForAnothersEnd() throws {
    let host = try TemporaryStore()
    host.store.close()
    let server = try DescriptorServer(path: host.path, largestCount: 2)
    try server.start { _ in nil }
    let clients = try (0..<3).map { _ in try Connection(host.path) }
    clients[2].send(DescriptorProtocol.request(DescriptorTicket(high: 0, low: 0)))
    #expect(!clients[2].hasAnswer)
    clients[0].end()
    #expect(clients[2].answer() == .refused)
    server.close()
  }

  @Test func aTicketForAClosedSegmentIsRefused() throws {
    let host = try TemporaryStore()
    let client = host.store.attach()
    let placement = try host.store.create(ObjectID(1), size: 2_000_000, client: client)
    host.store.abort(ObjectID(1), client: client)
    #expect(code { _ = try StoreClient(descriptorSocket: host.path).map(placement) } == .denied)
  }

  @Test func aSocketIsServedByOneStore() throws {
    let host = try TemporaryStore()
    let second = try Store(capacity: .megabytes(2), socket: host.path)
    #expect(code { try second.start() } == .alreadyExists)
    host.store.close()
    try second.start()
    second.close()
    #expect(access(host.path, F_OK) == -1)
    #expect(code { _ = try StoreClient(descriptorSocket: host.path).map(host.anyPlacement()) } == .unavailable)
  }

  @Test func aSocketThatADeadProcessLeftIsReplaced() async throws {
    let host = try TemporaryStore()
    host.store.close()
    // Bound and closed without being removed, as by a process that was killed.
    do { _ = try UnixSocket.listen(at: host.path) }
    #expect(access(host.path, F_OK) == 0)
    try host.store.start()
    try await host.put(ObjectID(1), [1], by: host.store.attach())
  }

  @Test func whatCannotBeServedIsRefusedClearly() throws {
    let long = "/tmp/" + String(repeating: "x", count: 103)
    #expect(code { _ = try Store(capacity: .megabytes(2), socket: long) } == .invalidArgument)
    #expect(code { _ = try Store(capacity: .kilobytes(1), socket: "/tmp/x") } == .invalidArgument)
    let nowhere = try Store(capacity: .megabytes(2), socket: "/nowhere/store.sock")
    #expect(code { try nowhere.start() } == .inputOutput)
  }
}

extension TemporaryStore {
  fileprivate func anyPlacement() throws -> Placement {
    try store.create(.random(), size: 1, client: store.attach())
  }
}

/// A client that sends what it likes.
private final class Connection {
  private let socket: OwnedDescriptor

  init(_ path: String) throws {
    socket = try UnixSocket.make()
    try UnixSocket.setTimeout(.seconds(20), on: socket)
    #expect(UnixSocket.connect(socket, to: path) == 0)
  }

  func send(_ bytes: [UInt8]) {
    #expect(Glibc.send(socket.rawValue, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count)
  }

  /// The next answer; `nil` when the store has closed the connection. A descriptor that comes with it is lost.
  func answer() -> DescriptorProtocol.Answer? {
    var byte: UInt8 = 0
    return recv(socket.rawValue, &byte, 1, 0) == 1 ? DescriptorProtocol.Answer(rawValue: byte) : nil
  }

  /// Whether something has come; false also when it is on its way.
  var hasAnswer: Bool {
    var byte: UInt8 = 0
    return recv(socket.rawValue, &byte, 1, CInt(MSG_PEEK | MSG_DONTWAIT)) > 0
  }

  func end() { shutdown(socket.rawValue, CInt(SHUT_RDWR)) }
}
