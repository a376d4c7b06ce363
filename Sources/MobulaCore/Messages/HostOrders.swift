package struct DropRequest: Codable, Sendable {
  package var objects: [ObjectID]
  /// Of those among them that have wrong bytes, what is wrong.
  package var damages: [ObjectID: String]

  package init(objects: [ObjectID], damages: [ObjectID: String] = [:]) {
    self.objects = objects
    self.damages = damages
  }
}

package struct KeepRequest: Codable, Sendable {
  package var objects: [ObjectID]

  package init(objects: [ObjectID]) { self.objects = objects }
}

package struct NameNews: Codable, Sendable {
  package var given: [Name: KnownName]
  package var taken: [Name]

  package init(given: [Name: KnownName], taken: [Name]) {
    self.given = given
    self.taken = taken
  }
}
