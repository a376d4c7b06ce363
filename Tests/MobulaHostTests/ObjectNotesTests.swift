import MobulaCore
import Testing

@testable import MobulaHost

/// What a host tells a restarted head.
@Suite struct ObjectNotesTests {
  private let old = ObjectID.random(job: .commandLine)
  private let new = ObjectID.random(job: .commandLine)

  @Test func aVersionThatNoURLNamesHasNoName() {
    let notes = ObjectNotes()
    notes.name("s3://m/one", KnownName(old, .url(claim: 1)))
    notes.name("s3://m/one#e1", KnownName(old, .version))
    notes.name("mine", KnownName(old, .given))
    notes.name("s3://m/one", KnownName(new, .url(claim: 2)))
    notes.name("s3://m/one#e2", KnownName(new, .version))
    #expect(notes.names(of: [old]) == ["mine": KnownName(old, .given)])
    #expect(Set(notes.names(of: [new]).keys) == ["s3://m/one", "s3://m/one#e2"])
    // A fetch that began before and was slower.
    notes.name("s3://m/one", KnownName(old, .url(claim: 1)))
    #expect(notes.names(of: [new]).count == 2)
  }

  @Test func aVersionWithAnotherURLKeepsItsName() {
    let notes = ObjectNotes()
    notes.name("s3://m/one", KnownName(old, .url(claim: 1)))
    notes.name("s3://m/one?versionId=1", KnownName(old, .url(claim: 2)))
    notes.name("s3://m/one#e1", KnownName(old, .version))
    notes.name("s3://m/one", KnownName(new, .url(claim: 3)))
    #expect(Set(notes.names(of: [old]).keys) == ["s3://m/one?versionId=1", "s3://m/one#e1"])
  }
}
