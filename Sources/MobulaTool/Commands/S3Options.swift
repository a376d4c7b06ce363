import ArgumentParser
import MobulaCore
import MobulaS3

/// How a command speaks to S3, where that is not as the environment says.
struct S3Options: ParsableArguments {
  @Option(help: "Another S3 than the one in the environment, as http://HOST:PORT.") var s3Endpoint: String?
  @Flag(help: "Ask S3 without credentials: for buckets that everybody may read.") var noSignRequest = false
  @Flag(help: "Agree to pay for the requests, as some buckets want it.") var requestPayer = false

  var access: S3Access {
    S3Access(endpoint: s3Endpoint, isUnsigned: noSignRequest, paysForRequests: requestPayer)
  }

  /// Arguments as this tool has them, of those that others' tools take: `--request-payer requester`.
  static func inOwnWords(_ arguments: [String]) -> [String] {
    var own: [String] = []
    for (index, argument) in arguments.enumerated() {
      if arguments[..<index].contains("--") {
        own.append(argument)
      } else if argument == "--request-payer=requester" {
        own.append("--request-payer")
      } else if argument != "requester" || index == 0 || arguments[index - 1] != "--request-payer" {
        own.append(argument)
      }
    }
    return own
  }

  /// - Parameter addresses: of S3 that the command has to do with.
  /// - Throws: `ValidationError` for an endpoint that can be none, and for what is said of an S3 that nothing is asked of.
  func check(for addresses: [String]) throws {
    if let s3Endpoint { _ = try asUsage { try S3Endpoint(s3Endpoint) } }
    if addresses.contains(where: S3Target.isS3) { return }
    let given =
      [s3Endpoint.map { _ in "--s3-endpoint" }, noSignRequest ? "--no-sign-request" : nil]
      + [requestPayer ? "--request-payer" : nil]
    if let option = given.compactMap({ $0 }).first {
      throw ValidationError("\(option) is for s3://BUCKET/KEY: give such an address, or leave it away.")
    }
  }
}
