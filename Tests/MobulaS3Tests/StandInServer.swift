import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaS3

/// A small HTTP server that stands in for one that can't be had here: it answers what a test says, to whole requests.
final class StandInServer: Sendable {
  struct Request: Sendable {
    var method: String
    /// With its query.
    var path: String
    /// Names in lower case.
    var headers: [String: String]
    var body: String
  }

  private let silent: SilentPort
  var port: Int { silent.port }
  private let seen = Mutex<[Request]>([])

  init(_ answer: @escaping @Sendable (Request) -> [UInt8]) throws {
    silent = try SilentPort()
    try silent.listen("stand-in") { [self] in serve($0, answer) }
  }

  func stop() { silent.stop() }

  var url: String { "http://127.0.0.1:\(port)" }

  /// All requests so far.
  var requests: [Request] { seen.withLock { $0 } }

  private func serve(_ connection: SilentConnection, _ answer: (Request) -> [UInt8]) {
    guard let head = connection.head() else { return }
    let lines = head.split(separator: "\r\n")
    let words = lines[0].split(separator: " ")
    var headers: [String: String] = [:]
    for line in lines.dropFirst() {
      let pair = line.split(separator: ":", maxSplits: 1)
      headers[pair[0].lowercased()] = pair.count == 2 ? String(pair[1].drop { $0 == " " }) : ""
    }
    guard let body = connection.body(headers["content-length"].flatMap { Int($0) } ?? 0) else { return }
    let request = Request(
      method: String(words[0]), path: String(words[1]), headers: headers, body: String(decoding: body, as: UTF8.self))
    seen.withLock { $0.append(request) }
    connection.answer(answer(request))
  }
}

/// The expectation that `body` fails with this code and a message with `part` in it.
func expectMobulaError(
  _ code: MobulaError.Code, _ part: String, sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () async throws -> Void
) async {
  do {
    try await body()
    Issue.record("no error", sourceLocation: sourceLocation)
  } catch {
    let error = mobulaError(error)
    #expect(error?.code == code, "\(error.map { "\($0)" } ?? "another kind of error")", sourceLocation: sourceLocation)
    #expect(error?.message.contains(part) == true, "\(error?.message ?? "")", sourceLocation: sourceLocation)
  }
}

/// An error of the client's in the form that all of them have.
func mobulaError(_ error: any Error) -> MobulaError? { error as? MobulaError ?? (error as? S3Error)?.mobulaError }

/// Counts calls, from 0.
final class Counter: Sendable {
  private let count = Mutex(0)

  func next() -> Int {
    count.withLock { count in
      defer { count += 1 }
      return count
    }
  }

  var value: Int { count.withLock { $0 } }
  func add(_ number: Int) { count.withLock { $0 += number } }
}
