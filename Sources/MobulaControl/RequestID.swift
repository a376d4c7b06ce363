/// A question that waits for its answer: the shell gives it out and keeps the
/// caller, the state machines only name it in their actions.
package struct RequestID: Hashable, Comparable, Sendable, CustomStringConvertible, ExpressibleByIntegerLiteral {
  package let number: UInt64

  package init(_ number: UInt64) { self.number = number }
  package init(integerLiteral value: UInt64) { number = value }

  package var description: String { "#\(number)" }
  package static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}
