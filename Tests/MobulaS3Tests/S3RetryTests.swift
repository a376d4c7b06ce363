import MobulaCore
import Testing

@testable import MobulaS3

/// When a request is made again, and how long S3 may ask to be left alone.
@Suite struct S3RetryTests {
  private struct Constant: RandomNumberGenerator {
    var value: UInt64
    mutating func next() -> UInt64 { value }
  }

  /// RFC 9110, section 5.6.7: the same time in its three forms.
  @Test(arguments: [
    "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
  ])
  func datesOfHTTP(text: String) { #expect(HTTPDate.secondsSince1970(text) == 784_111_777) }

  @Test func moreDatesOfHTTP() {
    #expect(HTTPDate.secondsSince1970("Thu, 01 Jan 1970 00:00:00 GMT") == 0)
    #expect(HTTPDate.secondsSince1970("Fri, 24 May 2013 00:00:00 GMT") == 1_369_353_600)
    #expect(HTTPDate.secondsSince1970("Tue, 29 Feb 2000 12:34:56 GMT") == 951_827_696)
    for text in [
      "", "soon", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 6a Nov 1994 08:49:37 GMT",
      "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 199999 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET",
    ] {
      #expect(HTTPDate.secondsSince1970(text) == nil, "\(text)")
    }
  }

  @Test func retryAfterIsSecondsOrADate() {
    #expect(S3Error.retryAfter("7", serverTime: nil) == .seconds(7))
    #expect(S3Error.retryAfter("Sun, 06 Nov 1994 08:49:47 GMT", serverTime: 784_111_777) == .seconds(10))
    #expect(S3Error.retryAfter("Sun, 06 Nov 1994 08:49:37 GMT", serverTime: 784_111_800) == .zero)
    for text in ["", "-1", "1.5", "99999999999999999999", "never"] {
      #expect(S3Error.retryAfter(text, serverTime: 0) == nil)
    }
  }

  @Test func whatTheServerAsksForComesOnTopAndIsBounded() {
    let policy = S3RetryPolicy(maximumAttempts: 3, firstPause: .milliseconds(100), maximumRetryAfter: .seconds(4))
    var shortest = Constant(value: 0)
    var longest = Constant(value: .max)
    #expect(policy.pause(after: 1, retryAfter: .seconds(3), using: &shortest) == .seconds(3))
    #expect(policy.pause(after: 1, retryAfter: .seconds(3), using: &longest)! > .milliseconds(3090))
    #expect(policy.pause(after: 1, retryAfter: .seconds(3600), using: &shortest) == .seconds(4))
    #expect(policy.pause(after: 3, retryAfter: .seconds(1), using: &shortest) == nil)
  }

  @Test func theErrorShowsWhatTheAnswerHad() {
    let head = S3Error.Head(
      status: 503, requestID: "R1", hostID: "H1", region: "eu-west-1", retryAfter: "2",
      date: "Sun, 06 Nov 1994 08:49:37 GMT")
    let body = "<Error><Code>SlowDown</Code><Message>Less, please</Message><HostId>H2</HostId></Error>"
    let error = S3Error.answer(
      head, body: Array(body.utf8), endpoint: S3Endpoint(host: "h", port: 1), bucket: "b", key: "k")
    #expect(error.code == "SlowDown" && error.message == "Less, please" && error.httpStatus == 503)
    #expect(error.requestID == "R1" && error.hostID == "H2" && error.region == "eu-west-1")
    #expect(error.retryAfter == .seconds(2) && error.serverTime == 784_111_777)
    #expect(error.isThrottling && error.isRetryable)
    #expect("\(error)" == error.mobulaError.message)
  }
}
