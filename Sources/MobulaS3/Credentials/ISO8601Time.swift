internal import FoundationEssentials

/// Reads the forms of ISO 8601 that credentials' sources write: `2026-11-23T13:02:32Z`, with a fraction of a
/// second, and with an offset such as `+01:00` instead of `Z`. `nil` for anything else.
func parseISO8601(_ text: String) -> Date? {
  var rest = Substring(text)
  func number(_ digits: Int, upTo limit: Int) -> Int? {
    let part = rest.prefix(digits)
    guard part.utf8.count == digits, part.utf8.allSatisfy({ 48...57 ~= $0 }), let value = Int(part), value <= limit
    else { return nil }
    rest = rest.dropFirst(digits)
    return value
  }
  func skip(_ character: Character) -> Bool {
    guard rest.first == character else { return false }
    rest.removeFirst()
    return true
  }
  guard let year = number(4, upTo: 9999), skip("-"), let month = number(2, upTo: 12), month > 0, skip("-"),
    let day = number(2, upTo: 31), day > 0, skip("T") || skip("t") || skip(" "),
    let hour = number(2, upTo: 23), skip(":"), let minute = number(2, upTo: 59), skip(":"),
    let second = number(2, upTo: 60)
  else { return nil }
  var fraction = 0.0
  if skip(".") {
    let digits = rest.prefix { $0.isASCII && $0.isNumber }
    guard 1...18 ~= digits.count, let value = Double("0.\(digits)") else { return nil }
    fraction = value
    rest = rest.dropFirst(digits.count)
  }
  var offset = 0
  if !skip("Z"), !skip("z") {
    let sign = rest.first == "-" ? -1 : 1
    guard skip("+") || skip("-"), let hours = number(2, upTo: 23) else { return nil }
    _ = skip(":")
    guard let minutes = number(2, upTo: 59) else { return nil }
    offset = sign * (hours * 3600 + minutes * 60)
  }
  guard rest.isEmpty else { return nil }
  let seconds = daysSince1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset
  return Date(timeIntervalSince1970: Double(seconds) + fraction)
}

/// Of the proleptic Gregorian calendar. (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2021.)
private func daysSince1970(_ year: Int, _ month: Int, _ day: Int) -> Int {
  // A year that begins in March has its leap day at its end.
  let year = month <= 2 ? year - 1 : year
  let era = (year >= 0 ? year : year - 399) / 400
  let yearOfEra = year - era * 400
  let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
  let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
  return era * 146_097 + dayOfEra - 719_468
}
