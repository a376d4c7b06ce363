internal import Glibc
internal import MobulaCore

extension TransferSocket {
  /// Connects to `endpoint`, trying each of its addresses.
  ///
  /// - Parameters:
  ///   - adopt: given each socket before it connects, so that another thread can shut it down.
  /// - Throws: `MobulaError`: `unavailable` when nobody listens there or the name is unknown,
  ///   `deadlineExceeded`, `invalidArgument` for a Unix socket.
  static func connect(
    to endpoint: Endpoint, peer: String, by deadline: ContinuousClock.Instant,
    adopt: (TransferSocket) throws(MobulaError) -> Void
  ) throws(MobulaError) -> TransferSocket {
    var failure = MobulaError(.unavailable, "\(endpoint) has no address: give the host's name or number.")
    for address in try SocketAddress.resolve(endpoint, passive: false) {
      let raw = try address.makeSocket()
      let socket = TransferSocket(OwnedDescriptor(owning: raw), peer: peer)
      try adopt(socket)
      do throws(MobulaError) {
        try address.connect(raw, to: endpoint, by: deadline)
        return socket
      } catch {
        failure = error
      }
    }
    throw failure
  }
}

/// An IPv4 or IPv6 address with its port.
struct SocketAddress {
  private var storage: sockaddr_storage
  private let length: socklen_t
  private var family: CInt { CInt(storage.ss_family) }

  /// The addresses of a TCP endpoint. A name is looked up, which blocks for as long as the resolver takes.
  static func resolve(_ endpoint: Endpoint, passive: Bool) throws(MobulaError) -> [SocketAddress] {
    guard case .tcp(let host, let port) = endpoint else {
      throw MobulaError(.invalidArgument, "\(endpoint) is no HOST:PORT: objects move between hosts over TCP.")
    }
    var hints = addrinfo()
    hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)
    var list: UnsafeMutablePointer<addrinfo>?
    let status = getaddrinfo(host, "\(port)", &hints, &list)
    guard status == 0 else {
      throw MobulaError(
        .unavailable,
        "The address of \(endpoint) can't be found (\(String(cString: gai_strerror(status)))): check the name.")
    }
    defer { freeaddrinfo(list) }
    var result: [SocketAddress] = []
    var entry = list
    while let info = entry?.pointee {
      if let address = info.ai_addr { result.append(SocketAddress(address, length: info.ai_addrlen)) }
      entry = info.ai_next
    }
    return result
  }

  private init(_ address: UnsafePointer<sockaddr>, length: socklen_t) {
    storage = sockaddr_storage()
    self.length = length
    withUnsafeMutableBytes(of: &storage) {
      $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: min(Int(length), $0.count)))
    }
  }

  func makeSocket() throws(MobulaError) -> CInt {
    try systemCall("A socket can't be made") {
      socket(family, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    }
  }

  /// A socket that listens at this address.
  func listen(at endpoint: Endpoint) throws(MobulaError) -> OwnedDescriptor {
    let raw = try makeSocket()
    let owned = OwnedDescriptor(owning: raw)
    var on: CInt = 1
    // A host that restarts must get its port back while old connections linger.
    setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<CInt>.size))
    let bound = withPointer { bind(raw, $0, length) }
    guard bound == 0, Glibc.listen(raw, 128) == 0 else {
      throw MobulaError(
        .unavailable,
        "Objects can't be served at \(endpoint) (\(errnoText(currentErrno()))): choose another address or port.")
    }
    return owned
  }

  fileprivate func connect(_ raw: CInt, to endpoint: Endpoint, by deadline: ContinuousClock.Instant) throws(MobulaError)
  {
    // Without blocking, so that the deadline is ours and not the kernel's two minutes.
    let flags = try systemCall("A socket can't be set up") { fcntl(raw, F_GETFL) }
    try systemCall("A socket can't be set up") { fcntl(raw, F_SETFL, flags | O_NONBLOCK) }
    var number: CInt = 0
    if withPointer({ Glibc.connect(raw, $0, length) }) != 0 { number = errno }
    if number == EINPROGRESS {
      var waiting = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
      let left = max(.zero, deadline - .now)
      let ready = try systemCall("Waiting for \(endpoint) failed") {
        poll(&waiting, 1, CInt(clamping: left.milliseconds))
      }
      guard ready > 0 else {
        throw MobulaError(
          .deadlineExceeded, "\(endpoint) did not answer in time: check that the host is up and reachable.")
      }
      var size = socklen_t(MemoryLayout<CInt>.size)
      getsockopt(raw, SOL_SOCKET, SO_ERROR, &number, &size)
    }
    guard number == 0 else {
      throw MobulaError(
        .unavailable,
        "Nobody answers at \(endpoint) (\(errnoText(number))): check the address and that the host is running.")
    }
    try systemCall("A socket can't be set up") { fcntl(raw, F_SETFL, flags) }
  }

  /// Where a connected socket's peer is, without its port; the same for all that can't be told.
  static func peer(of descriptor: CInt) -> String {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    let status = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        guard getpeername(descriptor, address, &length) == 0 else { return CInt(-1) }
        return getnameinfo(address, length, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
      }
    }
    return status == 0 ? String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) : ""
  }

  private func withPointer<Result>(_ body: (UnsafePointer<sockaddr>) -> Result) -> Result {
    withUnsafePointer(to: storage) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1, body) }
  }

  /// The port that `descriptor` is bound to.
  static func port(of descriptor: CInt) throws(MobulaError) -> Int {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    try systemCall("A socket has no address") {
      withUnsafeMutablePointer(to: &storage) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
      }
    }
    // Both families have their port, big-endian, in the same place.
    return withUnsafeBytes(of: storage) { Int($0[2]) << 8 | Int($0[3]) }
  }
}
