import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaTransfer

@Suite struct OfferStateMachineTests {
  private func origin(chunks: Int, window: Int, receivers: UInt64 = 2) -> OfferStateMachine {
    var offers = OfferStateMachine(count: chunks, isOrigin: true, window: window)
    for receiver in 0..<receivers { offers.joined(receiver) }
    offers.verified(ChunkMap(completeOf: chunks))
    return offers
  }

  @Test func anOriginTellsEachChunkToOneFirst() {
    var offers = origin(chunks: 6, window: 2)
    #expect(offers.take(0) == [0..<2])
    #expect(offers.take(1) == [2..<4])
    #expect(offers.take(0) == [])
    offers.acknowledged(0, 0)
    #expect(offers.take(0) == [4..<5])
    offers.acknowledged(0, 1)
    offers.acknowledged(0, 4)
    #expect(offers.take(0) == [5..<6])
    // Nothing is left that nobody was told, but each has something open.
    offers.acknowledged(1, 2)
    #expect(offers.take(1) == [])
    #expect(offers.take(0) == [])
    offers.acknowledged(1, 3)
    #expect(offers.take(1) == [0..<2])
    #expect(offers.take(1) == [])
    offers.acknowledged(1, 0)
    offers.acknowledged(1, 1)
    #expect(offers.take(1) == [4..<6])
    offers.acknowledged(0, 5)
    #expect(offers.take(0) == [2..<4])
  }

  @Test func whatTheDeadWereToldIsForTheOthers() {
    var offers = origin(chunks: 4, window: 2)
    #expect(offers.take(0) == [0..<2])
    #expect(offers.take(1) == [2..<4])
    offers.acknowledged(0, 0)
    offers.acknowledged(1, 2)
    #expect(offers.take(1) == [])
    #expect(offers.left(0) == true)
    // Chunk 0 came: others may have it by now. Chunk 1 did not.
    #expect(offers.take(1) == [1..<2])
    offers.acknowledged(1, 1)
    offers.acknowledged(1, 3)
    #expect(offers.take(1) == [0..<1])
    #expect(offers.left(1) == true)
    #expect(offers.isIdle)
  }

  @Test func anOriginThatStillFillsTellsWhatItHas() {
    var offers = OfferStateMachine(count: 4, isOrigin: true, window: 4)
    offers.joined(7)
    offers.joined(8)
    #expect(offers.take(7) == [])
    var map = ChunkMap(count: 4)
    map.insert(2)
    offers.verified(map)
    #expect(offers.take(8) == [2..<3])
    offers.acknowledged(8, 2)
    // It may be told the rest only once there is nothing new to come.
    #expect(offers.take(7) == [])
    offers.verified(ChunkMap(completeOf: 4))
    #expect(offers.take(7) == [0..<2, 3..<4])
    #expect(offers.take(8) == [0..<2, 3..<4])
  }

  @Test func whoHasItFromOthersTellsEverybodyEverything() {
    var offers = OfferStateMachine(count: 100, isOrigin: false, window: 1)
    offers.joined(1)
    offers.joined(2)
    var map = ChunkMap(count: 100)
    map.insert(70)
    map.insert(3)
    offers.verified(map)
    #expect(offers.take(1) == [3..<4, 70..<71])
    #expect(offers.take(1) == [])
    map.insert(4)
    offers.verified(map)
    #expect(offers.take(2) == [3..<5, 70..<71])
    #expect(offers.take(1) == [4..<5])
  }

  /// Receivers that come, take, and go in any order: whoever stays is told everything in the end.
  @Test(arguments: 1...50 as ClosedRange<UInt64>) func nobodyIsForgotten(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let count = Int.random(in: 1...40, using: &random)
    var offers = OfferStateMachine(
      count: count, isOrigin: Bool.random(using: &random), window: Int.random(in: 1...5, using: &random))
    var map = ChunkMap(count: count)
    var told: [UInt64: Set<Int>] = [:]
    var open: [UInt64: Set<Int>] = [:]
    var next: UInt64 = 0
    var steps = 0
    while steps < 400 || told.isEmpty || told.values.contains(where: { $0.count < count }) {
      steps += 1
      if steps > 20_000 {
        Issue.record("seed \(seed): \(told.mapValues(\.count)) of \(count)")
        return
      }
      switch steps < 400 ? Int.random(in: 0..<10, using: &random) : Int.random(in: 2..<8, using: &random) {
      case 0:
        offers.joined(next)
        told[next] = []
        open[next] = []
        next += 1
      case 1:
        guard let receiver = told.keys.sorted().randomElement(using: &random) else { continue }
        _ = offers.left(receiver)
        told[receiver] = nil
        open[receiver] = nil
      case 2:
        map.insert(Int.random(in: 0..<count, using: &random))
        if steps > 300 { map = ChunkMap(completeOf: count) }
        offers.verified(map)
      case 3...5:
        guard let receiver = told.keys.sorted().randomElement(using: &random) else {
          if steps >= 400 {
            offers.joined(next)
            told[next] = []
            open[next] = []
            next += 1
          }
          continue
        }
        for range in offers.take(receiver) {
          for chunk in range {
            #expect(map.contains(chunk), "seed \(seed)")
            #expect(told[receiver]!.insert(chunk).inserted, "seed \(seed)")
            open[receiver]!.insert(chunk)
          }
        }
      default:
        guard let receiver = told.keys.sorted().randomElement(using: &random),
          let chunk = open[receiver]!.sorted().randomElement(using: &random)
        else { continue }
        open[receiver]!.remove(chunk)
        offers.acknowledged(receiver, chunk)
      }
    }
  }
}
