internal import MobulaCore

enum SpillInstanceTag {}
/// Whose spill files they are: a store keeps it over its restarts, and no two stores have the same.
typealias SpillInstance = Identifier<SpillInstanceTag>

/// The names of the files in a spill folder; what is named otherwise is left alone.
enum SpillFileName: Hashable, Sendable, LosslessStringConvertible {
  /// `<object>.<instance>.spill`: a whole object.
  case object(ObjectID, SpillInstance)
  /// `<object>.<instance>.<number>.tmp`: an object that is being written.
  case temporary(ObjectID, SpillInstance, UInt64)
  /// `<instance>.lock`: locked as long as the instance lives.
  case lock(SpillInstance)

  init?(_ description: String) {
    let parts = description.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    switch (parts.count, parts.last) {
    case (3, "spill"):
      guard let object = ObjectID(parts[0]), let instance = SpillInstance(parts[1]) else { return nil }
      self = .object(object, instance)
    case (4, "tmp"):
      guard let object = ObjectID(parts[0]), let instance = SpillInstance(parts[1]), let number = UInt64(parts[2]),
        "\(number)" == parts[2]
      else { return nil }
      self = .temporary(object, instance, number)
    case (2, "lock"):
      guard let instance = SpillInstance(parts[0]) else { return nil }
      self = .lock(instance)
    default: return nil
    }
  }

  var description: String {
    switch self {
    case .object(let object, let instance): "\(object).\(instance).spill"
    case .temporary(let object, let instance, let number): "\(object).\(instance).\(number).tmp"
    case .lock(let instance): "\(instance).lock"
    }
  }

  var instance: SpillInstance {
    switch self {
    case .object(_, let instance), .temporary(_, let instance, _), .lock(let instance): instance
    }
  }

  var isLock: Bool { if case .lock = self { true } else { false } }
}
