import MobulaCore
import Testing

/// A type that a test names.
enum Outer {
  struct Inner {}
  struct Box<Value> {}
}

private struct Hidden {}

struct ReadableNameTests {
  @Test func typesAreNamedAsTheyAreWritten() throws {
    func name(_ type: any Any.Type) throws -> String { readableName(ofType: try #require(_mangledTypeName(type))) }
    #expect(try name(Outer.Inner.self) == "MobulaCoreTests.Outer.Inner")
    #expect(
      try name(Outer.Box<[String: Int]>.self) == "MobulaCoreTests.Outer.Box<Swift.Dictionary<Swift.String, Swift.Int>>")
    #expect(try name(Hidden.self) == "MobulaCoreTests.Hidden")
    #expect(try name(Outer.Box<Hidden>.self) == "MobulaCoreTests.Outer.Box<MobulaCoreTests.Hidden>")
  }

  @Test func whatIsNoneIsShownEscaped() {
    #expect(readableName(ofType: "") == "\"\"")
    #expect(readableName(ofType: "\u{1B}[31m") == "\"\\u{1B}[31m\"")
    #expect(readableName(ofType: String(repeating: "x", count: 100_000)).utf8.count < 100)
  }
}
