/// What went wrong with a model or its input, in one sentence that says what to do.
public struct SpeechError: Error, Sendable, Hashable, CustomStringConvertible {
  /// What kind of thing went wrong, for callers that tell kinds apart.
  public struct Code: Sendable, Hashable {
    private enum Kind: Hashable { case badModel, badAudio, unsupported, system }
    private let kind: Kind
    /// The model's files contradict themselves or the format, or could do harm.
    public static let badModel = Code(kind: .badModel)
    /// The audio can't be read, or is longer or of another kind than can be used.
    public static let badAudio = Code(kind: .badAudio)
    /// Well-formed, and of a kind that isn't implemented.
    public static let unsupported = Code(kind: .unsupported)
    /// The operating system refused something.
    public static let system = Code(kind: .system)
  }

  public let code: Code
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}
