import Glibc
import MobulaCore
import Testing

@testable import MobulaWire

@Suite struct ClusterTokenTests {
  @Test func isWrittenOnceAndForThisUserOnly() async throws {
    try await withFolder { folder in
      let path = "\(folder)/token"
      let token = ClusterToken.random()
      try token.write(file: path)
      var information = stat()
      #expect(stat(path, &information) == 0)
      #expect(information.st_mode & 0o7777 == 0o600)
      let read = try ClusterToken.read(file: path)
      #expect(read.proof(over: [[1]]) == token.proof(over: [[1]]))
      let again = await error { try ClusterToken.random().write(file: path) }
      #expect(again.code == .alreadyExists)
      #expect(try ClusterToken.read(file: path).proof(over: [[1]]) == token.proof(over: [[1]]))
    }
  }

  @Test func filesWithoutATokenAreRefused() async throws {
    try await withFolder { folder in
      let missing = await error { _ = try ClusterToken.read(file: "\(folder)/none") }
      #expect(missing.code == .inputOutput)
      #expect(missing.message.contains("No such file"))
      let path = "\(folder)/long"
      let file = try #require(fopen(path, "w"))
      fputs(String(repeating: "x", count: 5000), file)
      fclose(file)
      let long = await error { _ = try ClusterToken.read(file: path) }
      #expect(long.code == .invalidArgument)
      #expect(long.message.contains(path))
    }
  }

  @Test(arguments: [
    "", "short", "with a space in the middle", String(repeating: "x", count: 1025), "zwölf Boxkämpfer jagen",
  ])
  func unsuitableTextsAreRefused(_ text: String) {
    let thrown = #expect(throws: MobulaError.self) { try ClusterToken(text) }
    #expect(thrown?.code == .invalidArgument)
  }

  @Test func neverShowsItself() throws {
    let token = try ClusterToken("  a-very-secret-token\n")
    var dumped = ""
    dump(token, to: &dumped)
    for text in ["\(token)", String(reflecting: token), dumped] { #expect(!text.contains("secret")) }
    #expect(token.proof(over: [[1]]) == (try ClusterToken("a-very-secret-token")).proof(over: [[1]]))
  }

  @Test func proofIsHMACOfSHA256() throws {
    let token = try ClusterToken(String(repeating: "k", count: 20))
    // printf 'Hi There' | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkk
    #expect(
      hexadecimal(token.proof(over: [Array("Hi ".utf8), Array("There".utf8)]))
        == "1046c806047333131e249b79d69617c830380a6d59894be7084fb77303553db1")
  }
}
