public struct DropRequest: Codable, Sendable {
  public var objects: [ObjectID]
  /// Of those among them that have wrong bytes, what is wrong.
  public var damages: [ObjectID: String]

  public init(objects: [ObjectID], damages: [ObjectID: String] = [:]) {
    self.objects = objects
    self.damages = damages
  }
}

public struct KeepRequest: Codable, Sendable {
  public var objects: [ObjectID]

  public init(objects: [ObjectID]) { self.objects = objects }
}

public struct NameNews: Codable, Sendable {
  public var given: [Name: KnownName]
  public var taken: [Name]

  public init(given: [Name: KnownName], taken: [Name]) {
    self.given = given
    self.taken = taken
  }
}
