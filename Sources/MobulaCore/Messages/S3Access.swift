/// How S3 is spoken to, where that is not as the environment says.
public struct S3Access: Hashable, Sendable {
  /// Another S3 than the one in the environment, as `http://HOST:PORT`.
  public var endpoint: String?
  /// Whether requests carry no credentials: for buckets that everybody may read.
  public var isUnsigned: Bool
  /// Whether whoever asks agrees to pay for the requests, as some buckets want it.
  public var paysForRequests: Bool

  /// S3 as the environment names it, unless `endpoint` names another, with signed requests that the bucket's owner pays
  /// for, unless the others say otherwise.
  public init(endpoint: String? = nil, isUnsigned: Bool = false, paysForRequests: Bool = false) {
    self.endpoint = endpoint
    self.isUnsigned = isUnsigned
    self.paysForRequests = paysForRequests
  }

  /// From a message, whose fields are there only where they say something.
  package init(endpoint: String?, isUnsigned: Bool?, paysForRequests: Bool?) {
    self.init(endpoint: endpoint, isUnsigned: isUnsigned ?? false, paysForRequests: paysForRequests ?? false)
  }
}
