import MobulaCore
import MobulaWire
import Testing

@Suite struct RegistrationPartsTests {
  private func registration(_ objects: Int, _ holds: Int, _ names: Int) throws -> HostRegistration {
    let geometry = try ChunkGeometry(objectSize: 100)
    let digest = ObjectDigest(geometry: geometry, checksums: [0])
    func object(_ number: Int) -> ObjectID { ObjectID(high: 0, low: UInt64(number)) }
    return HostRegistration(
      host: HostID(high: 0, low: 1), name: "h", incarnation: 3, bulk: .tcp(host: "10.0.0.1", port: 1),
      capacity: .gigabytes(1),
      replicas: (0..<objects).map {
        ReplicaReport(object: object($0), geometry: geometry, digest: digest, contains: [object($0 + 1)])
      },
      holds: (0..<holds).map { object($0) },
      names: Dictionary(uniqueKeysWithValues: (0..<names).map { (Name("name \($0)"), KnownName(object($0), .given)) }),
      labels: ["zone": "a"])
  }

  /// Together the parts are the whole, whatever their size, and all but the last say that more follows.
  @Test(arguments: [1, 96, 97, 113, 114, 1000, 1 << 20])
  func togetherTheyAreTheWhole(bytes: Int) throws {
    for (objects, holds, names) in [(0, 0, 0), (1, 0, 0), (0, 5, 0), (7, 11, 13), (0, 0, 40)] {
      let whole = try registration(objects, holds, names)
      let (first, rest) = whole.parts(of: bytes)
      var joined = first
      for part in rest {
        #expect(joined.more == true && part.host == whole.host)
        joined.add(part)
      }
      #expect(joined.more == nil && joined.labels == whole.labels && joined.incarnation == 3)
      #expect(joined.holds == whole.holds && joined.names == whole.names)
      #expect(joined.replicas.map(\.object) == whole.replicas.map(\.object))
      if bytes == 1 { #expect(rest.count == max(0, objects + holds + names - 1)) }
      if bytes == 1 << 20 { #expect(rest.isEmpty) }
    }
  }

  @Test func holdsInParts() {
    let host = HostID(high: 0, low: 1)
    func objects(_ count: Int) -> [ObjectID] { (0..<count).map { ObjectID(high: 0, low: UInt64($0)) } }
    let whole = HoldChanges.parts(host, added: objects(3), removed: objects(2))
    #expect(whole.count == 1 && whole[0].added == objects(3) && whole[0].removed == objects(2))
    let many = HoldChanges.parts(host, added: objects(400_000), removed: objects(300_000))
    #expect(many.flatMap(\.added) == objects(400_000) && many.flatMap(\.removed) == objects(300_000))
    // Whatever begins is told before anything ends.
    #expect(many.firstIndex { !$0.removed.isEmpty }! > many.lastIndex { !$0.added.isEmpty }!)
    #expect(many.allSatisfy { 17 * ($0.added.count + $0.removed.count) < 8 << 20 })
  }

  @Test func listsInPages() {
    #expect(pages(of: [Int]()) { _ in 1 }.isEmpty)
    #expect(pages(of: [1, 2, 3]) { _ in PageBudget.bytes } == [[1], [2], [3]])
    #expect(pages(of: [1, 2, 3]) { _ in PageBudget.bytes / 2 } == [[1, 2], [3]])
    #expect(pages(of: [1, 2]) { _ in 10 * PageBudget.bytes } == [[1], [2]])
    let many = Array(0..<1_000_000)
    let some = pages(of: many) { _ in 17 }
    #expect(some.flatMap(\.self) == many && some.count == (17 * many.count + PageBudget.bytes - 1) / PageBudget.bytes)
  }
}
