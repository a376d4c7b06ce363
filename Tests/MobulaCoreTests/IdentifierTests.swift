import Foundation
import MobulaCore
import MobulaTestKit
import Testing

struct IdentifierTests {
  @Test func textIsThirtyTwoDigitsAndComesBack() {
    let id = HostID(high: 0x0123_4567_89AB_CDEF, low: 0xF)
    #expect(id.description == "0123456789abcdef000000000000000f")
    #expect(id.short == "01234567")
    #expect(HostID(id.description) == id)
  }

  @Test(arguments: [
    "", "0123456789abcdef000000000000000", "0123456789abcdef000000000000000f0", "0123456789ABCDEF000000000000000f",
    "0123456789abcdef+00000000000000f", "0123456789abcdeg000000000000000f", "0123456789abcdef 00000000000000f",
  ])
  func otherTextIsRefused(text: String) throws {
    #expect(HostID(text) == nil)
    let bytes = try CBOREncoder().encode(text)
    #expect(throws: DecodingError.self) { try CBORDecoder().decode(HostID.self, from: bytes) }
  }

  @Test func orderIsThatOfTheText() {
    var generator = SeededGenerator(seed: 7)
    let ids =
      (0..<200).map { _ in HostID.random(using: &generator) } + [HostID(high: 1, low: 0), HostID(high: 0, low: 2)]
    #expect(ids.sorted().map(\.description) == ids.map(\.description).sorted())
  }

  @Test func generatorsRepeatThemselvesAndTheSystemDoesNot() {
    var one = SeededGenerator(seed: 1)
    var same = SeededGenerator(seed: 1)
    #expect(HostID.random(using: &one) == HostID.random(using: &same))
    #expect(HostID.random() != HostID.random())
  }

  @Test func objectsBelongToTheirJob() {
    for number: UInt32 in [0, 1, .max] {
      let object = ObjectID.random(job: JobID(number))
      #expect(object.job == JobID(number))
      #expect(object != ObjectID.random(job: JobID(number)))
    }
    #expect(JobID.commandLine.number == 0)
    #expect(JobID(2) < JobID(10))
  }

  @Test func identifiersTravelAsBytes() throws {
    let bytes = try CBOREncoder().encode(PodID(high: 1, low: 2))
    #expect(try CBORValue(decoding: bytes).description == "h'00000000000000010000000000000002'")
    #expect(try CBORDecoder().decode(PodID.self, from: bytes) == PodID(high: 1, low: 2))
    #expect(try CBOREncoder().encode(JobID(3)) == [3])
  }

  @Test func identifiersAreTextInJSON() throws {
    let json = try JSONEncoder().encode([PodID(high: 1, low: 2)])
    #expect(String(decoding: json, as: UTF8.self) == #"["00000000000000010000000000000002"]"#)
    #expect(try JSONDecoder().decode([PodID].self, from: json) == [PodID(high: 1, low: 2)])
  }

  @Test func identifiersOfAnotherLengthAreRefused() throws {
    for length in [0, 15, 17, 32] {
      let bytes = try CBOREncoder().encode([UInt8](repeating: 1, count: length))
      #expect(throws: DecodingError.self) { try CBORDecoder().decode(HostID.self, from: bytes) }
    }
  }

  @Test func identifiersTravelInEveryPlace() throws {
    struct Holder: Codable, Equatable {
      var one: HostID
      var none: PodID?
      var some: PodID?
      var list: [ObjectID]
      var table: [ObjectID: Int]
    }
    var generator = SeededGenerator(seed: 3)
    let value = Holder(
      one: .random(using: &generator), none: nil, some: .random(using: &generator),
      list: (0..<30).map { _ in .random(using: &generator) }, table: [.random(using: &generator): 1])
    #expect(try CBORDecoder().decode(Holder.self, from: CBOREncoder().encode(value)) == value)
  }
}
