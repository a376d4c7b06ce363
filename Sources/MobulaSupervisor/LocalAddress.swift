import Glibc
package import MobulaCore
import Synchronization

/// Addresses of this machine: which a name has, which leads to another machine, and whether a port is free.
package enum LocalAddress {
  /// A name, or an address in numbers, as numbers; of a name's addresses the IPv4 one first.
  ///
  /// - Throws: `MobulaError`: `invalidArgument` for what is no name, `unavailable` when it has no address, or none within
  ///   2 seconds.
  package static func numeric(_ text: String, _ flag: String) throws(MobulaError) -> String {
    let host = text.hasPrefix("[") && text.hasSuffix("]") ? String(text.dropFirst().dropLast()) : text
    guard Endpoint.isHost(host), !host.contains("%") else {
      throw MobulaError(
        .invalidArgument, "\"\(text)\" is no name or address for \(flag): write it as 10.0.0.1, ::1 or host.example.")
    }
    let found = try lookUp(host, flag)
    guard let address = found.first(where: { !$0.contains(":") }) ?? found.first else {
      throw MobulaError(.unavailable, "\(host) has no address: check \(flag), or write it in numbers.")
    }
    return address
  }

  /// Whether nobody but this machine reaches it.
  package static func isLoopback(_ address: String) -> Bool { address.hasPrefix("127.") || address == "::1" }

  /// Whether it means every address of this machine, and so none that another could be told.
  package static func isWildcard(_ address: String) -> Bool { address == "0.0.0.0" || address == "::" }

  /// This machine's address on the way to `endpoint`, found by connecting a datagram socket, which sends nothing.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when there is no way.
  package static func towards(_ endpoint: Endpoint) throws(MobulaError) -> String {
    guard case .tcp(let host, let port) = endpoint else { return "127.0.0.1" }
    let address = try numeric(host, "--address")
    return try withSocketAddress(address, port) { pointer, length, family throws(MobulaError) in
      let probe = OwnedDescriptor(
        owning: try systemCall("A socket can't be made") {
          socket(family, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        })
      let raw = probe.rawValue
      guard connect(raw, pointer, length) == 0 else {
        throw MobulaError(
          .unavailable,
          "There is no way from here to \(host) (\(errnoText(currentErrno()))): check --address and the network.")
      }
      return try own(raw).address
    }
  }

  /// Listens at an address for a moment.
  ///
  /// - Returns: the port: a free one for 0.
  /// - Throws: `MobulaError`: `alreadyExists` when the port is taken, `invalidArgument` when the address is none of this
  ///   machine's.
  @discardableResult package static func checkFree(_ address: String, port: Int) throws(MobulaError) -> Int {
    try withSocketAddress(address, port) { pointer, length, family throws(MobulaError) in
      let endpoint = Endpoint.tcp(host: address, port: port)
      let listener = OwnedDescriptor(
        owning: try systemCall("A socket can't be made") {
          socket(family, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        })
      let raw = listener.rawValue
      var on: CInt = 1
      setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<CInt>.size))
      if bind(raw, pointer, length) == 0, listen(raw, 1) == 0 { return try own(raw).port }
      switch currentErrno() {
      case EADDRINUSE:
        throw MobulaError(
          .alreadyExists,
          "\(endpoint) is taken, by another cluster's head or another program: stop it, or choose another --port (0 for a free one)."
        )
      case EADDRNOTAVAIL:
        throw MobulaError(
          .invalidArgument, "\(address) is no address of this machine: give one of its own with --listen.")
      case EACCES:
        throw MobulaError(.denied, "Port \(port) is for privileged programs only: choose another --port, from 1024 on.")
      default: throw MobulaError.system("Listening at \(endpoint) is not possible")
      }
    }
  }

  /// Asks the resolver, which may take long, on a thread that is left to itself when it does.
  private static func lookUp(_ host: String, _ flag: String) throws(MobulaError) -> [String] {
    let answer = try Answer()
    detachThread(named: "resolver") { answer.give(resolve(host)) }
    guard let found = answer.wait(milliseconds: 1500) else {
      throw MobulaError(
        .unavailable, "The name \(host) can't be resolved within a moment: check \(flag), or write it in numbers.")
    }
    guard let addresses = found.addresses else {
      throw MobulaError(
        .unavailable, "The name \(host) can't be resolved (\(found.problem)): check \(flag), or write it in numbers.")
    }
    return addresses
  }

  private static func resolve(_ host: String) -> (addresses: [String]?, problem: String) {
    var hints = addrinfo()
    hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let status = getaddrinfo(host, nil, &hints, &list)
    guard status == 0 else { return (nil, String(cString: gai_strerror(status))) }
    defer { freeaddrinfo(list) }
    var result: [String] = []
    var entry = list
    while let info = entry?.pointee {
      if let address = info.ai_addr, let text = numbers(address, info.ai_addrlen)?.address { result.append(text) }
      entry = info.ai_next
    }
    return (result, "")
  }

  private static func numbers(_ address: UnsafePointer<sockaddr>, _ length: socklen_t) -> (address: String, port: Int)?
  {
    var host = [CChar](repeating: 0, count: 256)
    var port = [CChar](repeating: 0, count: 32)
    guard
      getnameinfo(
        address, length, &host, socklen_t(host.count), &port, socklen_t(port.count), NI_NUMERICHOST | NI_NUMERICSERV)
        == 0
    else { return nil }
    func text(_ buffer: [CChar]) -> String {
      String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    return Int(text(port)).map { (text(host), $0) }
  }

  private static func own(_ socket: CInt) throws(MobulaError) -> (address: String, port: Int) {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    try systemCall("This machine's address can't be found") {
      withUnsafeMutableBytes(of: &storage) {
        getsockname(socket, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
      }
    }
    let found = withUnsafeBytes(of: &storage) {
      numbers($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), length)
    }
    guard let found else { throw MobulaError(.unavailable, "This machine's address can't be read: give --listen.") }
    return found
  }

  /// - Parameter address: in numbers.
  private static func withSocketAddress<Result>(
    _ address: String, _ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t, CInt) throws(MobulaError) -> Result
  ) throws(MobulaError) -> Result {
    var hints = addrinfo()
    hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(address, "\(port)", &hints, &list) == 0, let found = list, let pointer = found.pointee.ai_addr
    else { throw MobulaError(.invalidArgument, "\(address) is no address: write it as 10.0.0.1 or ::1.") }
    defer { freeaddrinfo(list) }
    return try body(pointer, found.pointee.ai_addrlen, found.pointee.ai_family)
  }
}

/// What a thread finds out, for another that does not wait for ever.
private final class Answer: Sendable {
  private let reader: SharedDescriptor
  private let writer: SharedDescriptor
  private let found = Mutex<(addresses: [String]?, problem: String)?>(nil)

  package init() throws(MobulaError) {
    var ends: [CInt] = [-1, -1]
    try systemCall("A pipe can't be made") { pipe(&ends) }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    reader = SharedDescriptor(OwnedDescriptor(owning: ends[0]))
    writer = SharedDescriptor(OwnedDescriptor(owning: ends[1]))
  }

  package func give(_ answer: (addresses: [String]?, problem: String)) {
    found.withLock { $0 = answer }
    var byte: UInt8 = 1
    _ = write(writer.rawValue, &byte, 1)
  }

  package func wait(milliseconds: CInt) -> (addresses: [String]?, problem: String)? {
    var ready = pollfd(fd: reader.rawValue, events: Int16(POLLIN), revents: 0)
    _ = poll(&ready, 1, milliseconds)
    return found.withLock { $0 }
  }
}
