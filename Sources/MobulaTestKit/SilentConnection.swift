internal import Glibc
internal import MobulaCore

/// A server's end of an HTTP connection that serves one request, byte for byte as a test wants it.
public struct SilentConnection: Sendable {
  private let descriptor: SharedDescriptor

  init(_ descriptor: SharedDescriptor) { self.descriptor = descriptor }

  /// The request's line and headers, with the empty line; `nil` when the other side ends before.
  public func head() -> String? {
    var head: [UInt8] = []
    var byte: UInt8 = 0
    while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) {
      guard read(descriptor.rawValue, &byte, 1) == 1 else { return nil }
      head.append(byte)
    }
    return String(decoding: head, as: UTF8.self)
  }

  /// So many bytes of a request's body; `nil` when the other side ends before.
  public func body(_ count: Int) -> [UInt8]? {
    var body: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while body.count < count {
      let read = read(descriptor.rawValue, &buffer, min(buffer.count, count - body.count))
      guard read > 0 else { return nil }
      body += buffer[..<read]
    }
    return body
  }

  /// Sends an answer, and ends the connection.
  ///
  /// - Parameter resets: whether by a reset, rather than in order.
  public func answer(_ bytes: [UInt8], resets: Bool = false) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let sent = rest.withUnsafeBytes {
        send(descriptor.rawValue, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
      }
      guard sent > 0 else { return }
      rest = rest.dropFirst(sent)
    }
    if resets {
      var linger = linger(l_onoff: 1, l_linger: 0)
      setsockopt(descriptor.rawValue, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
      return
    }
    // Lets the client read to the end before the close, which may reset the connection.
    shutdown(descriptor.rawValue, CInt(SHUT_WR))
    var byte: UInt8 = 0
    while read(descriptor.rawValue, &byte, 1) > 0 {}
  }
}
