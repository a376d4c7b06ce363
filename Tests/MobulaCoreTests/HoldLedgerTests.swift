import MobulaTestKit
import Testing

@testable import MobulaCore

@Suite struct HoldLedgerTests {
  private func object(_ number: UInt64) -> ObjectID { ObjectID(high: 0, low: number) }

  @Test func onlyTheFirstAndTheLastHoldAreReported() {
    var ledger = HoldLedgerStateMachine()
    ledger.hold([object(1)], by: 1)
    ledger.hold([object(1)], by: 2)
    #expect(ledger.takeReport() == .init(added: [object(1)], removed: []))
    ledger.release([object(1)], by: 1)
    #expect(ledger.takeReport() == .init(added: [], removed: []))
    ledger.holderGone(2)
    #expect(ledger.takeReport() == .init(added: [], removed: [object(1)]))
  }

  @Test func aHoldThatCameAndWentIsNotReported() {
    var ledger = HoldLedgerStateMachine()
    ledger.hold([object(1)], by: 1)
    ledger.release([object(1)], by: 1)
    #expect(ledger.takeReport() == .init(added: [], removed: []))
  }

  @Test func whatASealSaysIsNotSaidAgain() {
    var ledger = HoldLedgerStateMachine()
    #expect(ledger.takeHeld(with: object(1)) == false)
    ledger.hold([object(1)], by: 1)
    #expect(ledger.takeHeld(with: object(1)) == true)
    #expect(ledger.takeReport() == .init(added: [], removed: []))
    ledger.release([object(1)], by: 1)
    #expect(ledger.takeReport() == .init(added: [], removed: [object(1)]))
  }

  /// What the next one up believes after all reports is what is so, whatever happened in between.
  @Test(arguments: 0..<200) func reportsAddUp(_ seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    var ledger = HoldLedgerStateMachine()
    var model: [UInt64: Set<ObjectID>] = [:]
    var believed: Set<ObjectID> = []
    for _ in 0..<300 {
      let holder = UInt64.random(in: 1...4, using: &generator)
      let one = object(.random(in: 1...6, using: &generator))
      switch Int.random(in: 0..<8, using: &generator) {
      case 0...2:
        ledger.hold([one], by: holder)
        model[holder, default: []].insert(one)
      case 3...4:
        ledger.release([one], by: holder)
        model[holder]?.remove(one)
      case 5:
        ledger.holderGone(holder)
        model[holder] = nil
      case 6: believed = Set(ledger.takeRegistration())
      default:
        let report = ledger.takeReport()
        #expect(believed.isDisjoint(with: report.added) && believed.isSuperset(of: report.removed), "seed \(seed)")
        believed.formUnion(report.added)
        believed.subtract(report.removed)
        #expect(believed == model.values.reduce(into: []) { $0.formUnion($1) }, "seed \(seed)")
      }
    }
  }

  /// What kept an object may end in the same moment as somebody holds it by himself.
  @Test func holdsAreToldBeforeEndsAcrossReports() {
    var ledger = HoldLedgerStateMachine()
    let container = ObjectID(high: 9, low: 9)
    ledger.hold([container], by: 1)
    #expect(ledger.takeReport().added == [container])
    let inner = (0..<100).map { ObjectID(high: 1, low: $0) }
    for (number, object) in inner.enumerated() { ledger.hold([object], by: UInt64(number + 2)) }
    ledger.release([container], by: 1)
    var added: Set<ObjectID> = []
    while ledger.hasChanges {
      let report = ledger.takeReport(limit: 30)
      #expect(report.added.count + report.removed.count <= 30)
      added.formUnion(report.added)
      if !report.removed.isEmpty { #expect(added == Set(inner) && report.removed == [container]) }
    }
    #expect(added == Set(inner))
  }
}
