import MobulaCore
import MobulaTestKit
import Testing

struct ChunkGeometryTests {
  @Test func allChunksButTheLastAreFull() throws {
    let geometry = try ChunkGeometry(objectSize: 200_000, chunkSize: 65_536)
    #expect(geometry.count == 4)
    #expect((0..<4).map(geometry.range) == [0..<65_536, 65_536..<131_072, 131_072..<196_608, 196_608..<200_000])
    #expect(try ChunkGeometry(objectSize: 131_072, chunkSize: 65_536).count == 2)
    #expect(try ChunkGeometry(objectSize: 1, chunkSize: 65_536).range(of: 0) == 0..<1)
  }

  @Test(arguments: [
    (0, 65_536), (-1, 65_536), (1, 0), (1, 32_768), (1, 65_537), (1, 134_217_728), (1, -65_536), (.max, 65_536),
    (.max, 67_108_864),
  ])
  func impossibleSizesAreRefused(objectSize: Int, chunkSize: Int) throws {
    #expect { try ChunkGeometry(objectSize: objectSize, chunkSize: chunkSize) } throws: {
      ($0 as? MobulaError)?.code == .protocolViolation
    }
    let bytes = try CBOREncoder().encode(["objectSize": objectSize, "chunkSize": chunkSize])
    #expect(throws: (any Error).self) { try CBORDecoder().decode(ChunkGeometry.self, from: bytes) }
  }

  @Test(arguments: [
    (1, 262_144), (268_435_456, 262_144), (268_435_457, 524_288), (564_000_000, 1_048_576),
    (100_000_000_000, 8_388_608),
  ])
  func theUsualGeometryHasUpTo1024Chunks(objectSize: Int, chunkSize: Int) throws {
    let geometry = try ChunkGeometry(objectSize: objectSize)
    #expect(geometry.chunkSize == chunkSize)
    #expect(try CBORDecoder().decode(ChunkGeometry.self, from: CBOREncoder().encode(geometry)) == geometry)
  }
}

struct ChunkMapTests {
  @Test(arguments: 1...20 as ClosedRange<UInt64>) func combinesLikeSets(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let count = Int.random(in: 1...300, using: &generator)
    func make() -> (ChunkMap, Set<Int>) {
      var map = ChunkMap(count: count)
      let members = Set((0..<count).filter { _ in Bool.random(using: &generator) })
      for member in members { map.insert(member) }
      return (map, members)
    }
    let (a, inA) = make(), (b, inB) = make(), (c, inC) = make()
    var union = a
    union.formUnion(b)
    #expect((0..<count).filter(union.contains) == inA.union(inB).sorted())
    #expect(union.verifiedCount == inA.union(inB).count)
    #expect(a.ranges(notIn: b).flatMap { Array($0) } == inA.subtracting(inB).sorted())
    #expect(a.first(notIn: b) == inA.subtracting(inB).min())
    var seen: [Int] = []
    a.forEach(notIn: b, c) {
      seen.append($0)
      return seen.count < 5
    }
    #expect(seen == Array(inA.subtracting(inB).subtracting(inC).sorted().prefix(5)))
    var rest = a
    for member in inB { #expect(rest.remove(member) == inA.contains(member)) }
    #expect((0..<count).filter(rest.contains) == inA.subtracting(inB).sorted())
    let all = ChunkMap(completeOf: count)
    #expect(all.isComplete && (0..<count).allSatisfy(all.contains))
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func behavesLikeASet(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let count = Int.random(in: 1...300, using: &generator)
    var map = ChunkMap(count: count)
    var model: Set<Int> = []
    for _ in 0..<2 * count {
      let index = Int.random(in: 0..<count, using: &generator)
      #expect(map.insert(index) == model.insert(index).inserted, "seed \(seed)")
      #expect(map.verifiedCount == model.count, "seed \(seed)")
      #expect(map.isComplete == (model.count == count), "seed \(seed)")
      let start = Int.random(in: 0...count, using: &generator)
      #expect(map.firstMissing(from: start) == (start..<count).first { !model.contains($0) }, "seed \(seed)")
    }
    #expect((0..<count).filter { map.contains($0) } == model.sorted(), "seed \(seed)")
    while let missing = map.firstMissing() { map.insert(missing) }
    #expect(map.isComplete)
  }

  @Test func anEmptyMapIsComplete() {
    #expect(ChunkMap(count: 0).isComplete)
    #expect(ChunkMap(count: 0).firstMissing() == nil)
  }
}

struct ObjectDigestTests {
  /// Computed by Python: `sha256(pack('<QQ', size, chunk) + pack('<I', ...)).hexdigest()`.
  @Test func isTheSHA256OfSizesAndChecksums() throws {
    let two = try ChunkGeometry(objectSize: 100_000, chunkSize: 65_536)
    let digest = ObjectDigest(geometry: two, checksums: [0xE306_9283, 0xDEAD_BEEF])
    #expect(digest.description == "ebdc5227751e68e39f83f18aa2ae9968cbddde3f8ecb199540c3dcfba630123f")
    let one = try ChunkGeometry(objectSize: 1, chunkSize: 65_536)
    #expect(
      ObjectDigest(geometry: one, checksums: [0]).description
        == "10cad0acdb0947a4b56c2d076b4052bcce553a4972c0745f944b8eb2309cfc80")
    #expect(try CBORDecoder().decode(ObjectDigest.self, from: CBOREncoder().encode(digest)) == digest)
  }

  @Test func hexadecimalIsLowerCase() {
    #expect(hexadecimal([0, 0x0F, 0xAB, 0xFF]) == "000fabff")
    #expect(hexadecimal([UInt8]()) == "")
  }
}
