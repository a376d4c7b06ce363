import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

/// The keeper's decisions; numbers stand for descriptors.
struct DescriptorKeeperStateMachineTests {
  private typealias Machine = DescriptorKeeperStateMachine<Int>

  private func makeMachine(entries: Int = 100, descriptors: Int = 100) -> Machine {
    Machine(largestEntryCount: entries, largestDescriptorCount: descriptors)
  }

  @Test func theLastDescriptorsOfEachKeyAreListed() {
    var machine = makeMachine()
    #expect(machine.keep("a", [1]) == "nothing")
    #expect(machine.keep("b", [2, 3]) == "nothing")
    #expect(machine.keep("c", [4, 5, 6, 7]) == "nothing")
    #expect(machine.send(.list) == "a [1], b [2, 3], c [4, 5, 6, 7]")
    #expect(machine.keep("a", [8, 9]) == "nothing")
    #expect(machine.send(.drop(key: "b")) == "nothing")
    #expect(machine.send(.drop(key: "unknown")) == "nothing")
    #expect(machine.send(.list) == "c [4, 5, 6, 7], a [8, 9]")
    #expect(machine.entryCount == 2 && machine.descriptorCount == 6)
  }

  @Test func whatHasNoRoomIsReportedAndNothingElseChanges() {
    var machine = makeMachine(entries: 2, descriptors: 5)
    #expect(machine.keep("a", [1, 2]) == "nothing")
    #expect(machine.keep("b", [3, 4, 5, 6]) == "report full")
    #expect(machine.keep("b", [3, 4, 5]) == "nothing")
    #expect(machine.send(.drop(key: "b")) == "nothing")
    #expect(machine.keep("c", [7]) == "nothing")
    #expect(machine.keep("d", [8]) == "report full")
    #expect(machine.keep("c", [9]) == "nothing", "a key that is there takes no further room")
    #expect(machine.send(.list) == "a [1, 2], c [9]")
  }

  @Test func whatCannotBeReplacedIsForgotten() {
    var machine = makeMachine(descriptors: 3)
    #expect(machine.keep("a", [1]) == "nothing")
    #expect(machine.keep("b", [2]) == "nothing")
    #expect(machine.keep("a", [3, 4, 5]) == "report full")
    #expect(machine.send(.list) == "b [2]", "the store has replaced 1 by others")
    #expect(machine.send(.keep(key: "b", count: 2), [6], isIncomplete: true) == "report full")
    #expect(machine.send(.list) == "")
    #expect(machine.descriptorCount == 0)
  }

  @Test func otherNumbersOfDescriptorsThanNamedAreAViolation() {
    var machine = makeMachine()
    #expect(machine.keep("a", [1]) == "nothing")
    #expect(machine.send(.keep(key: "a", count: 2), [2]) == "hang up protocolViolation")
    #expect(machine.send(.keep(key: "a", count: 1), [2, 3]) == "hang up protocolViolation")
    #expect(machine.send(.keep(key: "a", count: 4), [2, 3, 4, 5], isIncomplete: true) == "hang up protocolViolation")
    #expect(machine.send(.list, [2]) == "hang up protocolViolation")
    #expect(machine.send(.drop(key: "a"), [2]) == "hang up protocolViolation")
    #expect(machine.send(.list, isIncomplete: true) == "hang up protocolViolation")
    #expect(machine.send(.entry(key: "a", count: 1), [2]) == "hang up protocolViolation")
    #expect(machine.send(.end(count: 0)) == "hang up protocolViolation")
    #expect(machine.send(.list) == "a [1]", "what is kept stays")
  }

  @Test func nothingIsKeptAfterTheEnd() {
    var machine = makeMachine()
    #expect(machine.keep("a", [1]) == "nothing")
    machine.close()
    #expect(machine.keep("b", [2]) == "hang up")
    #expect(machine.send(.list) == "hang up")
    #expect(machine.entryCount == 0 && machine.descriptorCount == 0)
  }

  /// Against a plain dictionary.
  @Test(arguments: 1...20 as ClosedRange<UInt64>)
  func randomMessages(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var machine = makeMachine(entries: 6, descriptors: 12)
    var model: [String: [Int]] = [:]
    for step in 0..<500 {
      let key = "\(Int.random(in: 0..<10, using: &generator))"
      if Int.random(in: 0..<3, using: &generator) == 0 {
        #expect(machine.send(.drop(key: key)) == "nothing")
        model[key] = nil
      } else {
        let descriptors = (0..<Int.random(in: 1...4, using: &generator)).map { step * 4 + $0 }
        model[key] = nil
        let hasRoom = model.count < 6 && model.values.map(\.count).reduce(0, +) + descriptors.count <= 12
        if hasRoom { model[key] = descriptors }
        #expect(machine.keep(key, descriptors) == (hasRoom ? "nothing" : "report full"), "seed \(seed), step \(step)")
      }
      let expected = model.values.sorted { $0[0] < $1[0] }
      #expect(machine.listed() == expected, "seed \(seed), step \(step)")
      #expect(machine.descriptorCount == expected.map(\.count).reduce(0, +), "seed \(seed), step \(step)")
    }
  }
}

struct KeeperMessageTests {
  private let longest = String(repeating: "k", count: 200)

  @Test func messagesAreReadBack() {
    let messages: [KeeperMessage] = [
      .keep(key: "a", count: 1), .keep(key: longest, count: 4), .drop(key: "ключ"), .drop(key: "\0"), .list,
      .entry(key: longest, count: 3), .end(count: 0), .end(count: 100_000),
    ]
    for message in messages { #expect(KeeperMessage(message.encoded()) == message) }
    #expect(KeeperMessage.keep(key: "ab", count: 3).encoded() == [1, 1, 3, 2, 97, 98])
    #expect(KeeperMessage.drop(key: "ab").encoded() == [1, 2, 0, 2, 97, 98])
    #expect(KeeperMessage.list.encoded() == [1, 3, 0, 0])
    #expect(KeeperMessage.end(count: 100_000).encoded() == [1, 5, 0, 4, 0, 1, 0x86, 0xA0])
    #expect(KeeperMessage.keep(key: longest, count: 1).encoded().count == KeeperMessage.largestPacket)
  }

  @Test(arguments: malformedPackets)
  func nonsenseIsNoMessage(packet: [UInt8]) {
    #expect(KeeperMessage(packet) == nil)
  }

  @Test func noBytesAreFatal() {
    let seed: UInt64 = 17
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<20_000 {
      var packet = (0..<Int.random(in: 0...12, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      if packet.count >= 4 {
        packet[0] = 1
        packet[1] %= 7
        packet[2] %= 6
        packet[3] = UInt8(packet.count - 4)
      }
      // Whatever is read is written the same way.
      if let message = KeeperMessage(packet) { #expect(message.encoded() == packet, "seed \(seed)") }
    }
  }
}

let malformedPackets: [[UInt8]] = [
  [1], [1, 3, 0], Array("GET / HTTP/1.1".utf8), Array(repeating: 1, count: 300),
  [2, 3, 0, 0], [1, 0, 0, 0], [1, 6, 0, 0],
  // Lengths that differ from what follows.
  [1, 1, 1, 2, 97], [1, 1, 1, 0, 97], [1, 3, 0, 0, 0], [1, 3, 0, 1, 0],
  // Keys: empty, too long, not UTF-8.
  [1, 2, 0, 0], [1, 2, 0, 201] + Array(repeating: 97, count: 201), [1, 2, 0, 1, 0xFF], [1, 2, 0, 2, 0xC0, 0x80],
  // Numbers of descriptors.
  [1, 1, 0, 1, 97], [1, 1, 5, 1, 97], [1, 1, 255, 1, 97], [1, 2, 1, 1, 97], [1, 3, 1, 0],
  [1, 5, 0, 3, 0, 0, 0], [1, 5, 0, 5, 0, 0, 0, 0, 0],
]

extension DescriptorKeeperStateMachine<Int> {
  /// What the machine does about a message, in words.
  fileprivate mutating func send(
    _ message: KeeperMessage, _ descriptors: [Int] = [], isIncomplete: Bool = false
  ) -> String {
    switch received(message.encoded(), descriptors, isIncomplete: isIncomplete) {
    case .nothing: "nothing"
    case .report(let error): "report \(error.code)"
    case .answer(let entries): entries.map { "\($0.key) \($0.descriptors)" }.joined(separator: ", ")
    case .hangUp(let error): error.map { "hang up \($0.code)" } ?? "hang up"
    }
  }

  fileprivate mutating func keep(_ key: String, _ descriptors: [Int]) -> String {
    send(.keep(key: key, count: descriptors.count), descriptors)
  }

  fileprivate mutating func listed() -> [[Int]] {
    guard case .answer(let entries) = received(KeeperMessage.list.encoded(), [], isIncomplete: false) else { return [] }
    return entries.map(\.descriptors)
  }
}
