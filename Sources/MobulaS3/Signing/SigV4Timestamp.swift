internal import Glibc

/// A time as SigV4 writes it, in UTC: `20130524T000000Z`.
struct SigV4Timestamp: Sendable, CustomStringConvertible {
  let description: String

  /// The day: `20130524`.
  var date: String { String(description.prefix(8)) }

  init(secondsSince1970 seconds: Int) {
    var time = time_t(seconds)
    var parts = tm()
    gmtime_r(&time, &parts)
    func padded(_ number: CInt) -> String { number < 10 ? "0\(number)" : "\(number)" }
    description =
      "\(parts.tm_year + 1900)\(padded(parts.tm_mon + 1))\(padded(parts.tm_mday))"
      + "T\(padded(parts.tm_hour))\(padded(parts.tm_min))\(padded(parts.tm_sec))Z"
  }

  /// Now, by a clock that is `offset` seconds behind the server's.
  static func now(offset: Int = 0) -> SigV4Timestamp {
    SigV4Timestamp(secondsSince1970: secondsSince1970() + offset)
  }

  static func secondsSince1970() -> Int { time(nil) }
}
