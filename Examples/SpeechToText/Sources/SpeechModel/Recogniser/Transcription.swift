/// What was said.
public struct Transcription: Sendable, Hashable {
  /// A part of the text and when it is spoken, from the audio's beginning.
  public struct Segment: Sendable, Hashable {
    public let start: Duration
    public let end: Duration
    public let text: String

    public init(start: Duration, end: Duration, text: String) {
      self.start = start
      self.end = end
      self.text = text
    }
  }

  /// Where the time went, over all windows.
  public struct Timings: Sendable, Hashable {
    /// From samples to the encoder's input.
    public var features = Duration.zero
    public var encode = Duration.zero
    /// The search, with the language's detection.
    public var decode = Duration.zero
  }

  public let text: String
  public let segments: [Segment]
  /// As given or detected; `nil` where the model doesn't say.
  public let language: String?
  /// How long the audio is.
  public let audio: Duration
  public let timings: Timings
  /// Sentences about the audio: that it was cut, or is too short for any text.
  public let warnings: [String]
}

/// How far a transcription is, after each window.
public struct TranscriptionProgress: Sendable, Hashable {
  /// Of the audio, from its beginning.
  public let done: Duration
  /// What the window brought.
  public let segments: [Transcription.Segment]
}
