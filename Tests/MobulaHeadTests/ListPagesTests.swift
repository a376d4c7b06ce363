import MobulaCore
import MobulaWire
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct ListPagesTests {
  /// An object that no job takes along.
  private func kept(_ number: UInt64) -> ObjectID { object(number, job: 0) }

  private func report(_ number: UInt64) -> ReplicaReport {
    ReplicaReport(object: kept(number), geometry: geometry, digest: digest(), contains: [])
  }

  /// All pages from the first to the last, of so many objects at most; `between` happens after each.
  private func pages(
    of connection: RPCConnection, limit: Int?, between: (Int) async throws -> Void = { _ in }
  ) async throws -> [[ObjectListing]] {
    var pages: [[ObjectListing]] = []
    var request: ListRequest? = ListRequest(limit: limit)
    while let asked = request {
      let page = try await connection.call(HeadAPI.list, asked)
      request = ListRequest.next(after: page, limit: limit)
      if !page.isEmpty { pages.append(page) }
      try await between(pages.count)
    }
    return pages
  }

  @Test func theLeastAreKept() {
    var generator = SeededGenerator(seed: 1)
    for count in [0, 1, 2, 3, 10, 1000] {
      for range in [1, 5, 1_000_000] {
        let all = (0..<count).map { _ in Int.random(in: 0..<range, using: &generator) }
        for kept in Set([0, 1, 2, count / 2, count, count + 1]) {
          var some = all
          some.keepLeast(kept)
          #expect(some.sorted() == Array(all.sorted().prefix(kept)))
        }
      }
    }
  }

  /// More objects than fit into a frame: a host registers with them in parts, and the list comes in pages.
  @Test func manyObjects() async throws {
    try await withHead { cluster in
      let count: UInt64 = 150_000
      let host = try await cluster.host(1)
      try await host.register(replicas: (0..<count).map { report($0) }, holds: (0..<count).map { kept($0) })
      let first = try await host.connection.call(HeadAPI.list, ListRequest())
      #expect(!first.isEmpty && first.count < Int(count) && CBORSize.of(first) < 16 << 20)
      let all = try await pages(of: host.connection, limit: nil).flatMap(\.self)
      #expect(all.map(\.object) == (0..<count).map { kept($0) })
      #expect(all.allSatisfy { $0.hosts == [host.id] && $0.holders == 1 })
      #expect(cluster.head.status().hosts.map(\.objects) == [Int(count)])
    }
  }

  /// Objects come and go between the pages: those that are there all the time are listed once, in order.
  @Test func pagesWhileObjectsComeAndGo() async throws {
    try await withHead { cluster in
      let host = try await cluster.host(1)
      let stay = (0..<200 as Range<UInt64>).map { 1000 * $0 }
      try await host.register(replicas: stay.map { report($0) }, holds: stay.map { kept($0) })
      var generator = SeededGenerator(seed: 2)
      var guests: [UInt64] = []
      for limit in [1, 2, 7, 50, 199, 200, 201] {
        let pages = try await pages(of: host.connection, limit: limit) { _ in
          // Odd ones, anywhere among the others.
          let guest = UInt64.random(in: 0..<200_000, using: &generator) | 1
          let change = ReplicaChange.sealed(report(guest), held: true)
          _ = try await host.connection.call(HeadAPI.replicasChanged, ReplicaChanges(host: host.id, changes: [change]))
          guests.append(guest)
          guard guests.count > 3 else { return }
          let gone = ResolveRequest(Name("\(kept(guests.removeFirst()))"))
          _ = try? await host.connection.call(HeadAPI.remove, gone)
        }
        let listed = pages.flatMap(\.self).map(\.object)
        #expect(listed == listed.sorted() && Set(listed).count == listed.count)
        #expect(listed.filter { $0.low % 1000 == 0 } == stay.map { kept($0) })
        #expect(pages.allSatisfy { $0.count <= limit })
      }
    }
  }

  /// An object with more names than fit into a page comes in several.
  @Test func manyNames() async throws {
    try await withHead { cluster in
      let host = try await cluster.host(1)
      try await host.register(replicas: (0..<3).map { report($0) }, holds: (0..<3).map { kept($0) })
      // Two megabytes each, and so three of them for a page.
      let names = (0..<1200).map { Name("\($0 % 10)/cafe\u{301}\($0)" + String(repeating: "x", count: 8000)) }
      for name in names {
        _ = try await host.connection.call(HeadAPI.setName, NameRequest(name: name, object: kept(1)))
      }
      let pages = try await pages(of: host.connection, limit: nil)
      #expect(pages.count > 2 && pages.allSatisfy { CBORSize.of($0) < 16 << 20 })
      let listed = pages.flatMap(\.self)
      #expect(listed.filter { $0.object == kept(1) }.flatMap(\.names) == names.sorted())
      #expect(listed.filter { $0.object != kept(1) }.map(\.object) == [kept(0), kept(2)])
      let resolved = try await host.connection.call(HeadAPI.resolve, ResolveRequest(names[7]))
      #expect(resolved.names.count + (resolved.furtherNames ?? 0) == names.count && CBORSize.of([resolved]) < 16 << 20)
    }
  }

  /// A host with a million holds registers again, in parts: what hasn't come yet is not taken for gone.
  @Test func aMillionHolds() async throws {
    try await withHead { cluster in
      let holds = (0..<1_000_000 as Range<UInt64>).map { kept($0) }
      let (host, other) = (try await cluster.host(1), try await cluster.host(2))
      // The other host has a few of them, which nobody else holds.
      try await host.register(holds: holds)
      let some: [UInt64] = [0, 1, 499_999, 999_998, 999_999]
      try await other.register(replicas: some.map { report($0) })
      let parts = host.registration(holds: holds).parts()
      #expect(parts.rest.count > 2)
      _ = try await host.connection.call(HeadAPI.registerHost, parts.first)
      for part in parts.rest.dropLast() { _ = try await host.connection.call(HeadAPI.registerMore, part) }
      #expect(try await pages(of: host.connection, limit: 2).flatMap(\.self).map(\.holders) == [1, 1, 1, 1, 1])
      _ = try await host.connection.call(HeadAPI.registerMore, parts.rest.last!)
      #expect(try await pages(of: host.connection, limit: 2).flatMap(\.self).map(\.object) == some.map { kept($0) })
      // What it no longer holds goes with the last part.
      try await host.register(holds: Array(holds.dropLast()))
      #expect(
        try await pages(of: host.connection, limit: nil).flatMap(\.self).map(\.object)
          == some.dropLast().map { kept($0) })
    }
  }

  @Test func partsBelongToARegistration() async throws {
    try await withHead { cluster in
      let host = try await cluster.host(1)
      await #expect(throws: MobulaError.self) {
        try await host.connection.call(HeadAPI.registerMore, RegistrationPart(host: host.id))
      }
    }
  }

  /// Hosts with more labels than a page holds come in several.
  @Test func statusInPages() async throws {
    try await withHead { cluster in
      let count: UInt64 = 6
      var connections: [RPCConnection] = []
      for number in 1...count {
        let host = try await cluster.host(number)
        var registration = host.registration()
        for label in 0..<150 { registration.labels[Name("\(label)")] = Name(String(repeating: "y", count: 10_000)) }
        _ = try await host.connection.call(HeadAPI.registerHost, registration)
        connections.append(host.connection)
      }
      var (page, hosts, pages) = (try await connections[0].call(HeadAPI.status, StatusRequest()), [HostID](), 1)
      hosts += page.hosts.map(\.host)
      while page.more == true {
        page = try await connections[0].call(HeadAPI.status, StatusRequest(afterHost: hosts.last))
        hosts += page.hosts.map(\.host)
        pages += 1
      }
      #expect(hosts == (1...count).map { HostID(high: 0, low: $0) } && pages > 1)
    }
  }

  /// Any text can be a name, but nothing and what is too long.
  @Test func anyNameNamesItsOwnObject() async throws {
    try await withHead { cluster in
      let names: [Name] = [
        "\u{0}", "a\u{0}", "\n", "caf\u{e9}", "cafe\u{301}", "K", "\u{212A}", "\u{FFFE}",
        Name(String(repeating: "x", count: Name.longest)),
      ]
      let host = try await cluster.host(1)
      let numbers = 0..<UInt64(names.count)
      try await host.register(replicas: numbers.map { report($0) }, holds: numbers.map { kept($0) })
      for (name, number) in zip(names, numbers) {
        _ = try await host.connection.call(HeadAPI.setName, NameRequest(name: name, object: kept(number)))
      }
      for (name, number) in zip(names, numbers) {
        #expect(try await host.connection.call(HeadAPI.resolve, ResolveRequest(name)).object == kept(number))
      }
      for name in ["", Name(String(repeating: "x", count: Name.longest + 1))] {
        let refused = await #expect(throws: MobulaError.self) {
          try await host.connection.call(HeadAPI.setName, NameRequest(name: name, object: kept(0)))
        }
        #expect(refused?.code == .invalidArgument)
      }
    }
  }
}

/// How many bytes a value has on the wire.
private enum CBORSize {
  static func of(_ value: some Encodable) -> Int { (try? CBOREncoder().encode(value).count) ?? .max }
}

extension FakeHost {
  fileprivate func registration(replicas: [ReplicaReport] = [], holds: [ObjectID] = []) -> HostRegistration {
    HostRegistration(
      host: id, name: "host \(id.low)", incarnation: 1, bulk: .tcp(host: "10.0.0.1", port: 7601),
      capacity: .gigabytes(1),
      replicas: replicas, holds: holds, names: [:])
  }

  /// Registers again, in as many parts as it takes.
  fileprivate func register(replicas: [ReplicaReport] = [], holds: [ObjectID] = []) async throws {
    let (first, rest) = registration(replicas: replicas, holds: holds).parts()
    _ = try await connection.call(HeadAPI.registerHost, first)
    for part in rest { _ = try await connection.call(HeadAPI.registerMore, part) }
  }
}
