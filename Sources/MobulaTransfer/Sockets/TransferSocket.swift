internal import CMobula
internal import Glibc
internal import MobulaCore
internal import Synchronization

/// A connected TCP socket whose calls block the calling thread.
///
/// One thread may send and one receive at the same time; any thread may `shutDown`.
/// Only after the sending and the receiving thread are done may it be closed.
final class TransferSocket: Sendable {
  /// From how many bytes on to wait for all of them before they are received.
  private static let wakeSize = 65_536
  /// Who is at the other end, as error messages call it.
  let peer: String
  private let descriptor: CInt
  private let isOpen = Mutex(true)
  /// Milliseconds that the kernel lets a call wait, as it was told last.
  private let receiveTimeout = Atomic<Int64>(-1)
  /// What everything goes through once the connection is secure.
  private let stream = Mutex<SecureStream?>(nil)

  init(_ owned: consuming OwnedDescriptor, peer: String) {
    self.peer = peer
    descriptor = owned.release()
    // A message of a few bytes must not wait for the acknowledgement of the one before.
    setOption(CInt(IPPROTO_TCP), TCP_NODELAY, CInt(1))
  }

  deinit { close() }

  /// Fails the calls that other threads are in and all later ones. The descriptor stays taken.
  func shutDown() {
    isOpen.withLock { if $0 { _ = Glibc.shutdown(descriptor, CInt(SHUT_RDWR)) } }
  }

  /// Closes the socket; what was sent still reaches the peer.
  func close() {
    isOpen.withLock {
      if $0 { _ = Glibc.close(descriptor) }
      $0 = false
    }
  }

  /// Destroys the connection: the kernel drops what it has not sent.
  func abort() {
    setOption(SOL_SOCKET, SO_LINGER, linger(l_onoff: 1, l_linger: 0))
    close()
  }

  /// Keeps little in the kernel that has not left yet: what is sent after a chunk must not wait behind the next ones, and
  /// what is cancelled must not be on its way already.
  func limitUnsent() { setOption(CInt(IPPROTO_TCP), CInt(TCP_NOTSENT_LOWAT), CUnsignedInt(131_072)) }

  /// Limits how long a send may make no progress, and how long the peer's
  /// kernel may leave our bytes unacknowledged.
  func setSendTimeout(_ timeout: Duration) {
    setOption(SOL_SOCKET, SO_SNDTIMEO, timeval(timeout))
    setOption(CInt(IPPROTO_TCP), TCP_USER_TIMEOUT, CUnsignedInt(clamping: timeout.milliseconds))
  }

  /// Limits what the kernel takes in before it is received; to be set before the connection is made.
  func setReceiveBuffer(_ size: Int) { setOption(SOL_SOCKET, SO_RCVBUF, CInt(clamping: size)) }

  /// Sends all of `bytes`; `more` when a chunk's bytes follow, so that they share a packet.
  func send(_ bytes: [UInt8], more: Bool = false) throws(MobulaError) {
    if let stream = secureStream { return try stream.send(bytes, more: more) }
    try bytes.withUnsafeBufferPointer { bytes throws(MobulaError) in
      try sendPlain(UnsafeRawBufferPointer(bytes), more: more)
    }
  }

  /// Sends bytes as they are.
  func sendPlain(_ bytes: UnsafeRawBufferPointer, more: Bool = false) throws(MobulaError) {
    let flags = CInt(MSG_NOSIGNAL) | (more ? CInt(MSG_MORE) : 0)
    var sent = 0
    while sent < bytes.count {
      let count = Glibc.send(descriptor, bytes.baseAddress! + sent, bytes.count - sent, flags)
      if count < 0 { try failUnlessInterrupted("sending to") } else { sent += count }
    }
  }

  /// Sends `count` bytes of a file from `offset`, without copying them through this process unless they are encrypted.
  ///
  /// - Parameter progress: told the bytes that the kernel took, as it takes them.
  func sendFile(_ file: CInt, offset: Int, count: Int, progress: (Int) -> Void) throws(MobulaError) {
    if let stream = secureStream {
      return try stream.sendFile(file, offset: offset, count: count, progress: progress)
    }
    var sent = 0
    while sent < count {
      let taken = mobula_sendfile(descriptor, file, Int64(offset + sent), count - sent)
      if taken == 0 { throw Self.fileEnded }
      if taken < 0 {
        try failUnlessInterrupted("sending to")
      } else {
        sent += taken
        progress(taken)
      }
    }
  }

  /// Fills `buffer`.
  ///
  /// - Parameter isSmall: whether all of it comes at once, so that it needs no care how often its thread is woken.
  /// - Throws: `MobulaError`: `deadlineExceeded` when nothing came for `patience.stall` or its deadline
  ///   passed, `connectionClosed` when the peer went.
  func receive(
    into buffer: UnsafeMutableRawBufferPointer, _ patience: Patience, isSmall: Bool = false
  ) throws(MobulaError) {
    if let stream = secureStream { return try stream.receive(into: buffer, patience) }
    var received = 0
    while received < buffer.count {
      let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[received...])
      var isThere = true
      if rest.count >= Self.wakeSize, !isSmall { isThere = try waitForAll(of: rest.count, patience) }
      // From a slow sender part of it has come by now; from a silent one nothing.
      received += try receivePlain(into: rest, patience, flags: CInt(isThere ? MSG_WAITALL : MSG_DONTWAIT))
    }
  }

  /// Waits until so many bytes are there, or as many as the kernel takes in, or patience ends: a thread that is woken
  /// for every packet costs more than the packets do.
  private func waitForAll(of count: Int, _ patience: Patience) throws(MobulaError) -> Bool {
    setLowMark(count)
    defer { setLowMark(1) }
    return try waitUntilReadable(patience.next(for: peer))
  }

  /// Receives bytes as they are; how many is up to `flags`, but at least one.
  func receivePlain(
    into buffer: UnsafeMutableRawBufferPointer, _ patience: Patience, flags: CInt = 0
  ) throws(MobulaError) -> Int {
    while true {
      let allowed = try patience.next(for: peer)
      // Mostly it is the same as before.
      if receiveTimeout.exchange(allowed.milliseconds, ordering: .relaxed) != allowed.milliseconds {
        setOption(SOL_SOCKET, SO_RCVTIMEO, timeval(allowed))
      }
      let count = recv(descriptor, buffer.baseAddress, buffer.count, flags)
      if count == 0 {
        throw MobulaError(.connectionClosed, "\(peer) closed the connection: fetch from another source.")
      }
      if count > 0 { return count }
      try failUnlessInterrupted("receiving from")
    }
  }

  /// Whether bytes, or the end of the connection, can be received within `timeout`.
  func waitUntilReadable(_ timeout: Duration) throws(MobulaError) -> Bool {
    if let stream = secureStream, stream.hasReceived { return true }
    var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return try systemCall("Waiting for \(peer) failed") {
      poll(&waiting, 1, CInt(clamping: timeout.milliseconds))
    } > 0
  }

  var secureStream: SecureStream? { stream.withLock { $0 } }

  /// Sends and receives through TLS from now on. Before any other thread uses the socket.
  func secure(with stream: SecureStream) { self.stream.withLock { $0 = stream } }

  /// Ends our direction, so that the peer reads what was sent and then the end.
  func endSending() {
    isOpen.withLock { if $0 { _ = Glibc.shutdown(descriptor, CInt(SHUT_WR)) } }
  }

  static var fileEnded: MobulaError {
    MobulaError(.inputOutput, "The memory of an object ends before the object does: restart the host's store.")
  }

  private func stalled(_ what: String) -> MobulaError {
    MobulaError(
      .deadlineExceeded,
      "\(peer) did nothing for as long as the timeout for \(what) it allows: fetch from another source.")
  }

  private func setLowMark(_ count: Int) { setOption(SOL_SOCKET, SO_RCVLOWAT, CInt(clamping: count)) }

  private func failUnlessInterrupted(_ what: String) throws(MobulaError) {
    switch errno {
    case EINTR: return
    case EAGAIN: throw stalled(what)
    case ECONNRESET, EPIPE, ETIMEDOUT:
      throw MobulaError(.connectionClosed, "\(peer) went away (\(errnoText(errno))): fetch from another source.")
    case let number: throw MobulaError.system("An error occurred \(what) \(peer)", number: number)
    }
  }

  private func setOption<Value: BitwiseCopyable>(_ level: CInt, _ name: CInt, _ value: Value) {
    // These options exist on every Linux and take any value; a failure could only be a closed descriptor's.
    _ = withUnsafePointer(to: value) {
      setsockopt(descriptor, level, name, $0, socklen_t(MemoryLayout<Value>.size))
    }
  }
}

/// How long to wait for a peer: for its next byte, and for everything.
struct Patience: Sendable {
  var stall: Duration
  var deadline: ContinuousClock.Instant?

  /// How long the next call may block.
  func next(for peer: String) throws(MobulaError) -> Duration {
    guard let deadline else { return stall }
    let left = deadline - .now
    guard left > .zero else {
      throw MobulaError(
        .deadlineExceeded, "The deadline passed while waiting for \(peer): allow more time, or look at that host.")
    }
    return min(stall, left)
  }
}

extension Duration {
  /// Whole milliseconds, rounded up, so that a short wait does not become none.
  var milliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
  }
}

extension timeval {
  /// Zero would mean for ever, so at least a millisecond.
  init(_ duration: Duration) {
    let milliseconds = Int(max(1, duration.milliseconds))
    self.init(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
  }
}
