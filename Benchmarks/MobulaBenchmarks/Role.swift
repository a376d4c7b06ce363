import Dispatch
import MobulaCore
import Synchronization

/// What a process of this executable does that another one of it started.
enum Role: String {
  case operations, sharedReads
  case maker, reader, forbiddenCall, forbiddenGets, forbiddenPuts
  case timedGets, verifiedGets, timedSmallPuts, timedGetsOfAll, timedCreates, timedBigPuts, timedMapping

  static let marker = "--role"

  static func run(_ arguments: [String]) throws {
    guard let role = arguments.first.flatMap(Role.init(rawValue:)) else {
      throw MobulaError(.invalidArgument, "\(marker) is for the benchmark's own processes.")
    }
    let parent = Parent()
    let numbers = arguments.dropFirst().compactMap(Int.init)
    do {
      try role.run(parent, numbers, arguments)
    } catch let skipped as Skipped {
      parent.say("skip \(skipped.reason)")
    }
  }

  private func run(_ parent: Parent, _ numbers: [Int], _ arguments: [String]) throws {
    func number(_ index: Int) throws -> Int {
      guard index < numbers.count else { throw MobulaError(.invalidArgument, "\(self) needs more numbers.") }
      return numbers[index]
    }
    switch self {
    case .operations: try OperationCounts.run(parent, isQuick: arguments.last == "quick")
    case .sharedReads: try SharedReads.run(parent, isQuick: arguments.last == "quick")
    case .maker: try SharedReads.make(parent, numbers)
    case .reader: try SharedReads.read(parent)
    case .forbiddenCall: try SharedReads.forbiddenCall(parent)
    case .forbiddenGets: try SharedReads.forbiddenGets(parent, number(0))
    case .forbiddenPuts: try SharedReads.forbiddenPuts(parent)
    case .timedGets: try GetTimes.gets(parent, UInt64(number(0)))
    case .verifiedGets: try GetTimes.verifiedGets(parent, number(0))
    case .timedSmallPuts: try PutTimes.smallPuts(parent, number(0))
    case .timedGetsOfAll: try PutTimes.getsOfAll(parent, number(0))
    case .timedCreates: try PutTimes.creates(parent, number(0))
    case .timedBigPuts: try PutTimes.bigPuts(parent, number(0))
    case .timedMapping: try GetTimes.mapping(parent, UInt64(number(0)))
    }
  }
}

/// What a thread comes to, for the one that waits for it.
private final class Outcome<Value: Sendable>: Sendable {
  private let value = Mutex<Result<Value, any Error>?>(nil)
  private let isThere = DispatchSemaphore(value: 0)

  func set(_ result: Result<Value, any Error>) {
    value.withLock { $0 = result }
    isThere.signal()
  }

  func get() throws -> Value {
    isThere.wait()
    return try value.withLock { $0! }.get()
  }
}

/// Runs `body` on a thread of its own and waits for it.
func onOwnThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
  let outcome = Outcome<Value>()
  detachThread(named: "benchmark") { outcome.set(Result { try body() }) }
  return try outcome.get()
}
