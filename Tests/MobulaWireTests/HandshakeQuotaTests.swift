import Glibc
import MobulaCore
import NIOCore
import NIOPosix
import Testing

@testable import MobulaWire

@Suite struct HandshakeQuotaTests {
  @Test func theOldestOfAnAddressGoes() {
    var quota = HandshakeQuota<Int>(total: 10, perAddress: 3)
    #expect((1...3).compactMap { quota.accepted($0, from: "a") } == [])
    #expect(quota.accepted(4, from: "a") == 1)
    #expect(quota.accepted(5, from: "b") == nil, "another address is not concerned")
    #expect(quota.accepted(6, from: "a") == 2)
    #expect(quota.count == 4)
  }

  @Test func whoHasProvedItselfIsNotCounted() {
    var quota = HandshakeQuota<Int>(total: 10, perAddress: 2)
    for number in 0..<100 {
      #expect(quota.accepted(number, from: "a") == nil)
      quota.left(number)
    }
    #expect(quota.count == 0)
    quota.left(5)
    #expect(quota.count == 0, "one that isn't known is passed over")
  }

  @Test func ofTooManyInAllTheAddressWithMostGivesWay() {
    var quota = HandshakeQuota<Int>(total: 6, perAddress: 4)
    for number in 0..<4 { #expect(quota.accepted(number, from: "crowd") == nil) }
    #expect(quota.accepted(10, from: "b") == nil)
    #expect(quota.accepted(11, from: "c") == nil)
    #expect(quota.accepted(12, from: "d") == 0)
    #expect(quota.accepted(13, from: "d") == 1)
  }

  /// Connections that never say anything, from one address.
  @Test func silentConnectionsKeepNobodyOut() async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      guard case .tcp(let host, let port) = server.endpoint else { throw Strange() }
      var silent: [any Channel] = []
      for _ in 0..<600 {
        silent.append(
          try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: host, port: port).get())
      }
      let connection = try await fixture.connect(to: server)
      let answer = try await connection.call(echo, "hello")
      #expect(answer == "hello")
      // The first went for the last.
      try await silent[0].closeFuture.get()
      // Whoever has proved itself stays however many come.
      for _ in 0..<300 {
        silent.append(
          try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: host, port: port).get())
      }
      let again = try await connection.call(echo, "still here")
      #expect(again == "still here")
      await connection.close()
      for channel in silent { channel.close(promise: nil) }
    }
  }
}
