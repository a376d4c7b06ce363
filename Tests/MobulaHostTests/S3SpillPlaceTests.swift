import MobulaCore
import MobulaS3
import Testing

@testable import MobulaHost

/// What a store is told of a read from S3 that failed.
@Suite struct S3SpillPlaceTests {
  @Test(arguments: [
    ("NoSuchKey", 404, MobulaError.Code.notFound), ("404", 404, .unavailable), ("NoSuchBucket", 404, .unavailable),
    ("NoSuchUpload", 404, .unavailable), ("PreconditionFailed", 412, .mismatch), ("AccessDenied", 403, .denied),
    ("SlowDown", 503, .unavailable),
  ])
  func onlyAKeyThatS3DoesNotHaveIsNotFound(code: String, status: Int, told: MobulaError.Code) {
    let error = S3Error(
      code: code, httpStatus: status, endpoint: S3Endpoint(host: "localhost"), bucket: "scratch", key: "a/b")
    #expect((S3SpillPlace.readFailure(error) as? MobulaError)?.code == told)
  }

  @Test func aProfileThatIsMissingIsNotTheObject() {
    let error = S3SpillPlace.readFailure(MobulaError(.notFound, "There is no profile."))
    #expect((error as? MobulaError)?.code == .unavailable)
    #expect(S3SpillPlace.readFailure(CancellationError()) is CancellationError)
  }
}
