import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

struct RangeSetTests {
  @Test func neighboursAreJoined() {
    var set = RangeSet()
    set.insert(0..<4)
    set.insert(8..<12)
    #expect(set.ranges == [0..<4, 8..<12])
    set.insert(4..<8)
    #expect(set.ranges == [0..<12])
    set.insert(10..<20)
    set.insert(3..<3)
    #expect(set.ranges == [0..<20])
    #expect(set.totalCount == 20)
  }

  @Test func removingSplits() {
    var set = RangeSet(0..<10)
    set.remove(3..<5)
    #expect(set.ranges == [0..<3, 5..<10])
    set.remove(4..<4)
    set.remove(2..<6)
    #expect(set.ranges == [0..<2, 6..<10])
    #expect(set.totalCount == 6)
    set.remove(-5..<50)
    #expect(set.isEmpty && set.totalCount == 0)
  }

  @Test func lookUps() {
    var set = RangeSet(2..<4)
    set.insert(6..<16)
    #expect(set.contains(6..<16) && set.contains(2..<3) && set.contains(5..<5))
    #expect(!set.contains(3..<7) && !set.contains(5..<6) && !set.contains(15..<17))
    #expect(set.intersection(3..<8) == [3..<4, 6..<8])
    #expect(set.gaps(in: 0..<20) == [0..<2, 4..<6, 16..<20])
    #expect(set.first(atLeast: 3) == 6..<16)
    #expect(set.first(atLeast: 11) == nil)
    #expect(set.touchesBelow(4..<6) && set.touchesAbove(4..<6))
    #expect(!set.touchesBelow(5..<6) && !set.touchesAbove(4..<5))
    #expect(!set.touchesBelow(0..<2) && !set.touchesAbove(16..<20))
  }

  /// Against a set of single numbers.
  @Test(arguments: 1...30 as ClosedRange<UInt64>)
  func agreesWithAModel(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var set = RangeSet()
    var model: Set<Int> = []
    for step in 0..<1000 {
      let lower = Int.random(in: 0..<100, using: &generator)
      let range = lower..<Int.random(in: lower...min(100, lower + 12), using: &generator)
      if Bool.random(using: &generator) {
        set.insert(range)
        model.formUnion(range)
      } else {
        set.remove(range)
        model.subtract(range)
      }
      let from = Int.random(in: -2..<100, using: &generator)
      let asked = from..<Int.random(in: from...102, using: &generator)
      let message: Comment = "seed \(seed), step \(step)"
      #expect(set.ranges == runs(of: model, in: -2..<102), message)
      #expect(set.totalCount == model.count, message)
      #expect(set.contains(asked) == asked.allSatisfy(model.contains), message)
      #expect(set.overlaps(asked) == asked.contains(where: model.contains), message)
      #expect(set.intersection(asked) == runs(of: model, in: asked), message)
      #expect(set.gaps(in: asked) == runs(of: Set(asked).subtracting(model), in: asked), message)
      #expect(set.touchesBelow(asked) == model.contains(asked.lowerBound - 1), message)
      if !asked.isEmpty { #expect(set.touchesAbove(asked) == model.contains(asked.upperBound), message) }
    }
  }

  private func runs(of numbers: Set<Int>, in bounds: Range<Int>) -> [Range<Int>] {
    var runs: [Range<Int>] = []
    for number in bounds where numbers.contains(number) {
      if let last = runs.last, last.upperBound == number {
        runs[runs.count - 1] = last.lowerBound..<number + 1
      } else {
        runs.append(number..<number + 1)
      }
    }
    return runs
  }
}
