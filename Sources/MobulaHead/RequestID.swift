/// A question that waits for its answer: the shell gives it out and keeps the
/// caller, the state machines only name it in their actions.
struct RequestID: Hashable, Comparable, Sendable, CustomStringConvertible, ExpressibleByIntegerLiteral {
  let number: UInt64

  init(_ number: UInt64) { self.number = number }
  init(integerLiteral value: UInt64) { number = value }

  var description: String { "#\(number)" }
  static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}
