internal import CMobula
internal import Dispatch
internal import Glibc
import MobulaCore
internal import Synchronization

/// `sendfile` at one end, `recv` into a mapping at the other, in a loop: as fast as this machine's TCP goes
/// without anything of a protocol. Each connection carries its part of the bytes.
struct PlainLoop {
  private static let rounds = 5
  private static let receiveSize = 1 << 20

  let bytes: Int
  let connections: Int

  /// - Throws: `MobulaError` (`invalidArgument`).
  init(bytes: Int, connections: Int) throws(MobulaError) {
    guard bytes > 0, 1...16 ~= connections else {
      throw MobulaError(.invalidArgument, "A plain loop carries at least a byte, over 1 to 16 connections.")
    }
    self.bytes = bytes
    self.connections = connections
  }

  private func part(_ index: Int) -> Range<Int> { bytes * index / connections..<bytes * (index + 1) / connections }

  /// Receives `rounds` times and once more, and says how long it took from the first connection to the last byte.
  func serve(address: String) throws(MobulaError) {
    let memory = try TouchedMemory(bytes)
    let (listener, port) = try ProbeSockets.listening(on: address)
    LineRateProbe.say("listening \(port)")
    var times: [Double] = []
    for _ in 0...Self.rounds {
      var begin: ContinuousClock.Instant?
      var sockets: [SharedDescriptor] = []
      for _ in 0..<connections {
        sockets.append(try ProbeSockets.accepted(by: listener))
        if begin == nil { begin = .now }
      }
      try inParallel { [sockets] index throws(MobulaError) in
        let (socket, range) = (sockets[index].rawValue, part(index))
        var position = range.lowerBound
        while position < range.upperBound {
          let target = memory.mapping.bytes.baseAddress! + position
          let size = min(Self.receiveSize, range.upperBound - position)
          let count = try systemCall("The probe can't receive") { recv(socket, target, size, CInt(MSG_WAITALL)) }
          guard count > 0 else { throw MobulaError(.connectionClosed, "The probe's sender ended early.") }
          position += count
        }
      }
      times.append((ContinuousClock.now - begin!) / .seconds(1))
    }
    LineRateProbe.say("received \(bytes) \(Int(median(Array(times.dropFirst())) * 1e9))")
  }

  func send(to address: String, port: UInt16) throws(MobulaError) {
    let memory = try TouchedMemory(bytes)
    for _ in 0...Self.rounds {
      var sockets: [SharedDescriptor] = []
      for _ in 0..<connections {
        sockets.append(try ProbeSockets.connected(to: address, port: port))
      }
      try inParallel { [sockets] index throws(MobulaError) in
        let (socket, range) = (sockets[index].rawValue, part(index))
        var position = range.lowerBound
        while position < range.upperBound {
          let (offset, size) = (Int64(position), range.upperBound - position)
          let count = try systemCall("The probe can't send") {
            mobula_sendfile(socket, memory.descriptor.rawValue, offset, size)
          }
          position += count
        }
      }
    }
  }

  /// Runs a body for each connection, in threads of their own.
  private func inParallel(_ body: @escaping @Sendable (Int) throws(MobulaError) -> Void) throws(MobulaError) {
    let failure = SharedFailure()
    let done = DispatchSemaphore(value: 0)
    for index in 0..<connections {
      detachThread(named: "plain loop") {
        do throws(MobulaError) { try body(index) } catch { failure.note(error) }
        done.signal()
      }
    }
    for _ in 0..<connections { done.wait() }
    if let error = failure.first { throw error }
  }
}

/// Shared memory of which every page is there and mapped.
private struct TouchedMemory: Sendable {
  let descriptor: SharedDescriptor
  let mapping: MemoryMapping

  init(_ count: Int) throws(MobulaError) {
    descriptor = SharedDescriptor(try MemoryFile.create(name: "probe", size: count))
    mapping = try MemoryMapping(descriptor.rawValue, count: count, access: .readWrite)
    for offset in stride(from: 0, to: count, by: pageSize) { mapping.bytes[offset] = 1 }
  }
}

private final class SharedFailure: Sendable {
  private let error = Mutex<MobulaError?>(nil)

  var first: MobulaError? { error.withLock { $0 } }

  func note(_ failure: MobulaError) { error.withLock { if $0 == nil { $0 = failure } } }
}
