import Glibc
import MobulaCore
import Synchronization

/// An HTTP server that answers exactly what a test tells it, also what no server should.
final class FaultyServer: Sendable {
  let port: Int
  private let listener: SharedDescriptor
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
    (listener, port) = try boundSocket()
    let raw = listener.rawValue
    try systemCall("listen") { listen(raw, 64) }
    detachThread(named: "faulty") { [self] in
      while true {
        let connection = accept(raw, nil, nil)
        guard connection >= 0 else { return }
        detachThread(named: "faulty") { self.serve(OwnedDescriptor(owning: connection), answer) }
      }
    }
  }

  /// Ends the thread that accepts; the descriptor is closed when that has let go of it.
  func stop() { shutdown(listener.rawValue, Int32(SHUT_RDWR)) }

  /// The heads of all requests so far.
  var requests: [String] { received.map(\.head) }
  var received: [Request] { counts.withLock { $0 } }

  private func serve(_ connection: consuming OwnedDescriptor, _ answer: (Request) -> Reply) {
    var head: [UInt8] = []
    var byte: UInt8 = 0
    while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) {
      guard read(connection.rawValue, &byte, 1) == 1 else { return }
      head.append(byte)
    }
    var request = Request(number: 0, head: String(decoding: head, as: UTF8.self), body: [])
    let length = request.header("content-length").flatMap { Int($0) } ?? 0
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while request.body.count < length {
      let count = read(connection.rawValue, &buffer, min(buffer.count, length - request.body.count))
      guard count > 0 else { return }
      request.body += buffer[..<count]
    }
    counts.withLock {
      request.number = $0.count
      $0.append(request)
    }
    let reply = answer(request)
    var rest = reply.bytes[...]
    while !rest.isEmpty {
      let sent = rest.withUnsafeBytes { send(connection.rawValue, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      guard sent > 0 else { return }
      rest = rest.dropFirst(sent)
    }
    if reply.resets {
      var linger = linger(l_onoff: 1, l_linger: 0)
      setsockopt(connection.rawValue, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
      return
    }
    // Lets the client read to the end before the close, which may reset the connection.
    shutdown(connection.rawValue, Int32(SHUT_WR))
    while read(connection.rawValue, &byte, 1) > 0 {}
  }
}

/// A TCP socket with a port of its own on 127.0.0.1 that refuses connections until somebody makes it listen.
func boundSocket() throws -> (SharedDescriptor, port: Int) {
  let raw = try systemCall("socket") { socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0) }
  let descriptor = SharedDescriptor(OwnedDescriptor(owning: raw))
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
  var length = socklen_t(MemoryLayout<sockaddr_in>.size)
  try withUnsafeMutablePointer(to: &address) { pointer in
    try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
      try systemCall("bind") { bind(raw, address, length) }
      try systemCall("getsockname") { getsockname(raw, address, &length) }
    }
  }
  return (descriptor, Int(in_port_t(bigEndian: address.sin_port)))
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
