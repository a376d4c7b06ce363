/// One label of a host, as in `zone=eu-1`.
public struct HostLabel: Hashable, Sendable, LosslessStringConvertible {
  /// What it is about, as `zone`.
  public var key: Name
  /// What it says.
  public var value: Name

  /// A label of this key and this value.
  public init(_ key: Name, _ value: Name) {
    self.key = key
    self.value = value
  }

  /// Reads `KEY=VALUE`, both of 1 to 63 letters, digits and `. _ - /`; `nil` for anything else.
  public init?(_ description: String) {
    let sides = description.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard sides.count == 2, sides.allSatisfy({ 1...63 ~= $0.count && $0.allSatisfy(Self.isAllowed) }) else {
      return nil
    }
    self.init(Name(sides[0]), Name(sides[1]))
  }

  public var description: String { "\(key)=\(value)" }

  private static func isAllowed(_ character: Character) -> Bool {
    character.isASCII && (character.isLetter || character.isNumber || "._-/".contains(character))
  }

  /// The label that says where a host is: what is in the same zone is near.
  public static let zoneKey: Name = "zone"
}

/// Some of the cluster's hosts, by their labels.
public struct HostSelector: Hashable, Sendable {
  /// All of which a host must have.
  public var labels: [Name: Name]

  /// The hosts with all of these labels.
  public init(labels: [Name: Name] = [:]) { self.labels = labels }

  /// Every host.
  public static let all = HostSelector()

  /// The hosts with this label.
  public static func label(_ key: Name, _ value: Name) -> HostSelector { HostSelector(labels: [key: value]) }

  /// Whether a host with these labels is meant.
  public func matches(_ labels: [Name: Name]) -> Bool {
    self.labels.allSatisfy { labels[$0.key] == $0.value }
  }
}
