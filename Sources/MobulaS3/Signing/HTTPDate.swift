/// A time as HTTP writes it (RFC 9110, section 5.6.7): the fixed form, and the two obsolete ones that a recipient
/// has to accept.
enum HTTPDate {
  private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

  /// `nil` for a text that is none.
  static func secondsSince1970(_ text: String) -> Int? {
    let words = text.split { " ,-".contains($0) }
    // Sun, 06 Nov 1994 08:49:37 GMT | Sunday, 06-Nov-94 08:49:37 GMT | Sun Nov  6 08:49:37 1994
    if words.count == 6, words[5] == "GMT" {
      return seconds(day: words[1], month: words[2], year: words[3], time: words[4])
    }
    if words.count == 5 { return seconds(day: words[2], month: words[1], year: words[4], time: words[3]) }
    return nil
  }

  private static func seconds(day: Substring, month: Substring, year: Substring, time: Substring) -> Int? {
    let parts = time.split(separator: ":").map { number($0) }
    guard let day = number(day), 1...31 ~= day, let month = months.firstIndex(of: String(month)),
      var year = number(year), parts.count == 3, let hour = parts[0], let minute = parts[1], let second = parts[2],
      hour < 24, minute < 60, second < 61
    else { return nil }
    // Two digits: what is more than 50 years ahead lies in the century before; nothing of S3's is older than 1970.
    if year < 70 { year += 2000 } else if year < 100 { year += 1900 }
    guard 1970...9999 ~= year else { return nil }
    return days(year: year, month: month + 1, day: day) * 86_400 + hour * 3600 + minute * 60 + second
  }

  private static func number(_ text: Substring) -> Int? {
    text.utf8.count <= 4 && text.allSatisfy { $0.isASCII && $0.isNumber } ? Int(text) : nil
  }

  /// Days from 1 January 1970, with years that begin in March, so that the leap day is a year's last.
  private static func days(year: Int, month: Int, day: Int) -> Int {
    let year = month > 2 ? year : year - 1
    let monthsSinceMarch = (month + 9) % 12
    let dayOfYear = (153 * monthsSinceMarch + 2) / 5 + day - 1
    return year * 365 + year / 4 - year / 100 + year / 400 + dayOfYear - 719_468
  }
}
