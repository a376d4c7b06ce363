import FoundationEssentials
import MobulaCore
import MobulaTestKit
import MobulaWire
import Testing

@testable import MobulaTransfer

/// Peers that say anything at all: random, truncated, replayed and oversized frames, wrong checksums.
///
/// For a second each, or for ten minutes with MOBULA_LONG_TESTS.
@Suite(.timeLimit(.minutes(10))) struct FuzzTests {
  private static let isLong = currentEnvironment()["MOBULA_LONG_TESTS"] != nil
  private static let duration = Duration.seconds(isLong ? 300 : 1)

  private func message(_ random: inout SeededGenerator, _ object: ObjectID) -> TransferMessage {
    let chunk = Int.random(in: 0...9, using: &random)
    switch Int.random(in: 0..<12, using: &random) {
    case 0: return .open(Bool.random(using: &random) ? object : .random(), bulk: "127.0.0.1:\(chunk)")
    case 1, 2: return .request(chunk)
    case 3: return .cancel(chunk)
    case 4: return .acknowledge(chunk)
    case 5: return .done
    case 6:
      return .opened(
        objectSize: 8 * 65_536 - Int.random(in: 0...2, using: &random), chunkSize: 65_536, wantsNews: chunk > 4)
    case 7, 8: return .offer([chunk..<Int.random(in: chunk...9, using: &random)])
    case 9:
      return .chunk(
        ChunkHeader(index: chunk, length: Bool.random(using: &random) ? 65_536 : chunk, checksum: random.next32()))
    case 10: return .failed(.notFound, "no")
    default: return .alive
    }
  }

  /// Some messages, some of them spoiled.
  private func bytes(_ random: inout SeededGenerator, _ object: ObjectID) -> [UInt8] {
    var bytes: [UInt8] = []
    var last: [UInt8] = []
    for _ in 0..<Int.random(in: 1...6, using: &random) {
      var frame = message(&random, object).frame
      switch Int.random(in: 0..<10, using: &random) {
      case 0: frame = (0..<Int.random(in: 0...40, using: &random)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      case 1: frame = Array(frame.prefix(Int.random(in: 0...frame.count, using: &random)))
      case 2: frame = last
      case 3: frame[Int.random(in: 0..<frame.count, using: &random)] = UInt8(truncatingIfNeeded: random.next())
      case 4: frame += [UInt8](repeating: 7, count: 65_536)
      default: break
      }
      last = frame
      bytes += frame
    }
    return bytes
  }

  @Test func receiversThatSayAnythingHarmNobody() async throws {
    let seed = UInt64.random(in: .min ... .max)
    var random = SeededGenerator(seed: seed)
    let original = try makeReplica(chunks: 8)
    let host = try TestHost(serving: [original])
    let digest = original.digest
    let end = ContinuousClock.now + Self.duration
    var rounds = 0
    while ContinuousClock.now < end {
      rounds += 1
      let socket = try host.connect()
      // A good beginning reaches deeper.
      if Bool.random(using: &random) { try? socket.send(.open(original.object, bulk: "")) }
      for _ in 0..<4 { try? socket.send(bytes(&random, original.object)) }
      if Bool.random(using: &random) { socket.abort() } else { socket.close() }
      if rounds % 50 == 0 {
        let copy = try original.empty()
        _ = try await host.fetch(into: copy)
        #expect(copy.digest == digest && copy.hasSameBytes(as: original), "seed \(seed), round \(rounds)")
      }
    }
    let copy = try original.empty()
    _ = try await host.fetch(into: copy)
    #expect(copy.digest == digest && copy.hasSameBytes(as: original), "seed \(seed)")
    await host.close()
    #expect(host.server.connectionCount == 0, "seed \(seed)")
    print("receivers that say anything: seed \(seed), \(rounds) of them")
  }

  @Test func sourcesThatSayAnythingCorruptNothing() async throws {
    let seed = UInt64.random(in: .min ... .max)
    var random = SeededGenerator(seed: seed)
    let original = try makeReplica(chunks: 8)
    let good = try TestHost(serving: [original])
    let end = ContinuousClock.now + Self.duration
    var rounds = 0
    while ContinuousClock.now < end {
      rounds += 1
      let copy = try original.empty()
      let said = (0..<5).map { _ in bytes(&random, original.object) }
      let opensWell = Bool.random(using: &random)
      let geometry = original.geometry
      let isHelped = Bool.random(using: &random)
      let script: @Sendable (TransferSocket) throws -> Void = { socket in
        _ = try socket.receiveMessage(patience)
        if opensWell {
          try socket.send(.opened(objectSize: geometry.objectSize, chunkSize: geometry.chunkSize, wantsNews: true))
          try socket.send(.offer([0..<8]))
        }
        for bytes in said { try socket.send(bytes) }
      }
      try await withFakeSource(script) { endpoint, host in
        let bad = TransferPeer(host: host, bulk: endpoint)
        let report = try? await fetch(
          into: copy, from: isHelped ? [bad, good.peer] : [bad], timeouts: TransferTimeouts(stall: .seconds(1)))
        if isHelped { #expect(report?.chunks == 8, "seed \(seed), round \(rounds)") }
      }
      #expect(copy.claimedChunks.isEmpty, "seed \(seed), round \(rounds)")
      // What counts as verified is right, whoever sent it.
      for chunk in 0..<8 where copy.chunkMap.contains(chunk) {
        let sum = crc32c(UnsafeRawBufferPointer(copy.memory(of: chunk)))
        #expect(sum == copy.checksum(of: chunk), "seed \(seed), round \(rounds)")
      }
      if isHelped { #expect(copy.digest == original.digest, "seed \(seed), round \(rounds)") }
    }
    await good.close()
    print("sources that say anything: seed \(seed), \(rounds) of them")
  }
}

extension SeededGenerator {
  fileprivate mutating func next32() -> UInt32 { UInt32(truncatingIfNeeded: next()) }
}
